"""What a batch consists of: a folder of folders, or a list in YAML."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flows.case_folder import HIDDEN, names
from flows.request import PHOTO_FOLDERS, RunRequest, case_name, entering
from flows.settings import DEFAULT_PRESET, read_yaml, resolve
from pipeline.errors import InputError
from pipeline.suggest import nearest
from pipeline.text import plain_name, visible
from stages.registry import find_stage

BESIDE_PHOTOS = {
    "masks": "masks",
    "ground_truth": "cameras.npz",
    "ground_truth_mesh": "mesh_gt.ply",
}
"""Files by role that belong to a case where they lie beside its folder of photos."""
MOST_RUNS = 10_000


@dataclass(frozen=True)
class BatchRun:
    """One run of a batch.

    Attributes:
        name: of its output folder; unique in the batch.
        case: name of the case; runs of a sweep share it.
        preset: name it starts from.
        seed: of this run.
        request: what to do; None where that is refused already.
        refusal: why.
        siblings: output folders of the same case under other presets or seeds.
    """

    name: str
    case: str
    preset: str
    seed: int
    request: RunRequest | None
    refusal: InputError | None = None
    siblings: tuple[Path, ...] = ()


class CaseEntry(BaseModel):
    """One case of a list.

    Attributes:
        photos: folder of photos, relative to the list or absolute.
        name: of its output folder; by default that of the photos.
        masks, ground_truth, ground_truth_mesh: the user's other files.
        presets, seeds: this case's own sweep instead of the list's.
        options: `stage.option: value` over preset and list.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    photos: str
    name: str | None = None
    masks: str | None = None
    ground_truth: str | None = None
    ground_truth_mesh: str | None = None
    presets: list[str] | None = Field(None, min_length=1)
    seeds: list[int] | None = Field(None, min_length=1)
    options: dict[str, Any] = Field(default_factory=dict, alias="set")


class BatchList(BaseModel):
    """A batch in YAML: cases × presets × seeds.

    Attributes:
        cases: what to run; a plain string stands for its photos.
        presets: every case runs with each of them.
        seeds: every case runs with each of them.
        options: `stage.option: value` for all cases, over the preset.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    cases: list[CaseEntry | str] = Field(min_length=1)
    presets: list[str] = Field(default_factory=list)
    seeds: list[int] = Field(default_factory=list)
    options: dict[str, Any] = Field(default_factory=dict, alias="set")


@dataclass(frozen=True)
class Choices:
    """What the command line says about all runs; it wins over the list.

    Attributes:
        presets, seeds: sweeps; empty = as the list says, or the default.
        overrides: `stage.option=value`.
        config: YAML file over the preset.
        stop: stage after which every run stops.
    """

    presets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    overrides: tuple[str, ...] = ()
    config: Path | None = None
    stop: str | None = None


@dataclass(frozen=True)
class _Case:
    name: str
    photos: Path
    external: dict[str, Path]
    presets: list[str]
    seeds: list[int]
    options: dict[str, Any] = field(default_factory=dict)


def read_batch(source: Path, out: Path, choices: Choices) -> list[BatchRun]:
    """All runs of a batch, every name checked; a refused case does not stop the others.

    Args:
        source: folder of folders, or list in YAML.
        out: folder that takes one output folder a run.

    Raises:
        InputError: no cases, a list that cannot be read, an unknown preset or option for all.
    """
    if source.is_dir():
        runs = _expand_all(_cases_of_folder(source, out), out, choices)
    elif source.is_file():
        runs = _expand_all(_cases_of_list(source), out, choices)
    else:
        raise InputError(f"{source} does not exist", hint="give a folder of folders, or a list")
    if len(runs) > MOST_RUNS:
        raise InputError(f"{len(runs)} runs are more than the {MOST_RUNS} of one batch")
    twice = [name for name, count in Counter(r.name.casefold() for r in runs).items() if count > 1]
    if twice:
        raise InputError(
            f"several cases are named {names(twice)}", hint="give each its own `name` in the list"
        )
    return runs


def _cases_of_folder(source: Path, out: Path) -> list[_Case]:
    try:
        folders = sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith("."))
    except PermissionError as error:
        raise InputError(f"no permission to read the folder {source}") from error
    cases = [_case_in(folder) for folder in folders if not _is_ours(folder, out)]
    if not cases:
        raise InputError(
            f"no folders in {source}: expected one folder a case",
            hint="for a single case: porf run " + str(source) + " -o OUT",
        )
    return cases


def _case_in(folder: Path) -> _Case:
    photos = next((folder / n for n in PHOTO_FOLDERS if (folder / n).is_dir()), folder)
    beside = {role: folder / name for role, name in BESIDE_PHOTOS.items()}
    external = {role: path for role, path in beside.items() if path.exists()}
    return _Case(folder.name, photos, {} if photos == folder else external, [], [])


def _is_ours(folder: Path, out: Path) -> bool:
    """Whether a folder beside the cases is an output folder and not a case."""
    return folder == out or (folder / HIDDEN).is_dir()


def _cases_of_list(path: Path) -> list[_Case]:
    batch = _read_list(path)
    cases = []
    for given in batch.cases:
        entry = CaseEntry(photos=given) if isinstance(given, str) else given
        photos = _beneath(path, entry.photos)
        roles = {role: getattr(entry, role) for role in BESIDE_PHOTOS}
        cases.append(
            _Case(
                name=plain_name(entry.name or case_name(photos), "the case's name"),
                photos=photos,
                external={role: _beneath(path, p) for role, p in roles.items() if p},
                presets=entry.presets or batch.presets,
                seeds=entry.seeds or batch.seeds,
                options={**batch.options, **entry.options},
            )
        )
    return cases


def _read_list(path: Path) -> BatchList:
    values = read_yaml(path)
    try:
        return BatchList.model_validate(values)
    except ValidationError as error:
        raise InputError(
            f"{path}: " + "; ".join(_explain(problem) for problem in error.errors()[:5]),
            hint="a list holds `cases`, and optionally `presets`, `seeds` and `set`",
        ) from error


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"] if part not in ("CaseEntry", "str"))
    if problem["type"] == "extra_forbidden":
        known = {*BatchList.model_fields, *CaseEntry.model_fields, "set"} - {"options"}
        return f"unknown name '{visible(where)}'{nearest(where.rsplit('.')[-1], known)}"
    return f"{visible(where) or 'the list'}: {problem['msg'].lower()}"


def _beneath(list_path: Path, text: str) -> Path:
    """A path of a list: absolute, or beneath the list's own folder.

    A list from elsewhere must not reach files by `..` that its reader did not mean to give.
    """
    if not text or visible(text) != text or "\n" in text or "\t" in text:
        raise InputError(f"{list_path}: the path '{visible(text)}' is empty or does not print")
    given = Path(text).expanduser()
    if not given.is_absolute() and ".." in given.parts:
        raise InputError(
            f"{list_path}: '{text}' leads out of the list's folder",
            hint="write it as an absolute path",
        )
    return given if given.is_absolute() else list_path.absolute().parent / given


def _expand_all(cases: Iterable[_Case], out: Path, choices: Choices) -> list[BatchRun]:
    resolve((choices.presets or (DEFAULT_PRESET,))[0], choices.config, choices.overrides)
    if choices.stop:
        find_stage(choices.stop)  # refuses an unknown one
    sweeps = [_expand(case, out, choices) for case in cases]
    longest = max(len(runs) for runs in sweeps)
    # round by round: the second variant of a case then finds what the first one made
    return [runs[i] for i in range(longest) for runs in sweeps if i < len(runs)]


def _expand(case: _Case, out: Path, choices: Choices) -> list[BatchRun]:
    presets = list(choices.presets) or case.presets or [DEFAULT_PRESET]
    seeds = list(choices.seeds) or case.seeds
    runs = []
    for preset in presets:
        for seed in seeds or (None,):
            suffix = f"-{preset}" if len(presets) > 1 else ""
            suffix += f"-seed{seed}" if len(seeds) > 1 else ""
            runs.append(_run(case, out, case.name + suffix, preset, seed, choices))
    folders = [run.request.out for run in runs if run.request]
    return [replace(run, siblings=tuple(f for f in folders if f.name != run.name)) for run in runs]


def _run(
    case: _Case, out: Path, name: str, preset: str, seed: int | None, choices: Choices
) -> BatchRun:
    try:
        plain_name(name, "the case's name")
        seeded = {} if seed is None else {"seed": seed}
        layer = {**case.options, **seeded}
        settings = resolve(preset, choices.config, choices.overrides, layer)
        request = RunRequest(
            photos=case.photos,
            out=out / name,
            preset=preset,
            settings=settings.model_dump(mode="json"),
            stop=choices.stop,
            **entering(case.photos, case.external),
        )
    except InputError as refusal:
        return BatchRun(name, case.name, preset, seed or 0, None, refusal)
    return BatchRun(name, case.name, preset, settings.seed, request)
