"""`porf stage`: one stage by hand, on given inputs, outside any store."""

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from flows.case_folder import CaseFolder
from flows.cli import console, end_like_ctrl_c
from flows.cli.arguments import DEFAULT, ConfigOption, PresetOption, SetOption, absolute
from flows.console import duration, make_reporter
from flows.listeners import StageListener
from flows.settings import resolve
from flows.stage_process import run_stage_process
from pipeline.errors import InputError
from pipeline.store.files import disk_error, replace_tree
from pipeline.store.manifest import Manifest
from pipeline.suggest import nearest
from pipeline.verdict import Verdict
from stages.base import Stage
from stages.process import StageRequest
from stages.registry import STAGES, find_stage, route

InputsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="Artifact folder of an upstream stage, or a user file by role "
        "(photos, case, masks, ground_truth, ground_truth_mesh).",
        metavar="NAME=PATH",
    ),
]
FromRunOption = Annotated[
    Path | None,
    typer.Option("--of", help="Take inputs that are not given from this run's results."),
]


def stage(
    name: Annotated[str, typer.Argument(help="Stage to run.", metavar="NAME")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the stage's output.")],
    inputs: InputsOption = None,
    of: FromRunOption = None,
    preset: PresetOption = DEFAULT,
    overrides: SetOption = None,
    config: ConfigOption = None,
) -> None:
    """Run one stage by hand on given inputs; nothing is cached."""
    chosen = find_stage(name)
    settings = resolve(preset, config, overrides or [])
    target = absolute(out)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists and is not an empty folder", hint="choose a new one")
    paths, manifests = gather_inputs(chosen, _parse(inputs or []), of)
    if chosen.check:
        chosen.check(paths, getattr(settings, name))
    verdict, wall_s = perform_stage(chosen, settings, paths, manifests, target)
    console.print(f"[green]✓[/] {name} {duration(wall_s)} → {escape(str(target))}")
    for figure, value in verdict.figures.items():
        console.print(f"  {escape(figure)} = {escape(str(value))}")
    for reason in verdict.reasons:
        console.print(f"  [yellow]! {escape(reason)}[/]")


def gather_inputs(
    stage: Stage, given: dict[str, Path], run: Path | None
) -> tuple[dict[str, Path], dict[str, dict[str, Any]]]:
    """Paths of a stage's inputs by name, and the manifests of those that have one.

    Raises:
        InputError: a name that the stage does not read, a missing folder, or a missing input.
    """
    known = (*stage.inputs, *stage.external)
    roles = set(given)
    for name, path in given.items():
        if name not in known:
            raise InputError(
                f"{stage.name} reads no '{name}'{nearest(name, known)}",
                hint="it reads: " + ", ".join(known),
            )
        if not path.exists():
            raise InputError(f"{path} (given as {name}) does not exist")
    paths, manifests = dict(given), {}
    if run is not None:
        folder = CaseFolder(absolute(run))
        record = folder.load_record()
        roles |= set(record.external)
        files = {r: Path(p) for r, p in record.external.items() if r in stage.external}
        paths = {**files, **_artifacts(folder, stage, record.keys), **given}
    for name in route(roles).get(stage.name, stage).inputs:
        if name not in paths:
            raise InputError(
                f"{stage.name} needs the result of {name}",
                hint=f"give --input {name}=FOLDER, or --of OUT to take it from a run",
            )
        manifest = paths[name] / "manifest.json"
        if manifest.is_file():
            record_of = Manifest.model_validate_json(manifest.read_bytes())
            manifests[name] = record_of.model_dump(mode="json")
    return paths, manifests


def _artifacts(folder: CaseFolder, stage: Stage, keys: dict[str, str]) -> dict[str, Path]:
    return {
        name: folder.store.artifact(name, keys[name])
        for name in stage.inputs
        if name in keys and folder.store.find(name, keys[name])[0]
    }


def perform_stage(
    stage: Stage,
    settings: Any,
    paths: dict[str, Path],
    manifests: dict[str, dict[str, Any]],
    target: Path,
) -> tuple[Verdict, float]:
    with tempfile.TemporaryDirectory(prefix="porf-stage-") as scratch:
        built, work = Path(scratch) / "out", Path(scratch) / "work"
        built.mkdir()
        work.mkdir()
        request = StageRequest(
            stage=stage.name,
            options=getattr(settings, stage.name).model_dump(mode="json"),
            seed=settings.seed,
            inputs={n: paths[n] for n in stage.inputs if n in paths},
            external={r: paths[r] for r in stage.external if r in paths},
            manifests=manifests,
            out=built,
            work=work,
            outcome=work / "outcome.json",
        )
        end_like_ctrl_c()
        with make_reporter(console) as reporter:
            reporter.stage_starts(stage.name, ["by hand"])
            outcome = run_stage_process(request, StageListener(stage.name, reporter).event)
        try:
            if target.exists():
                target.rmdir()
            replace_tree(built, target)
        except OSError as error:
            raise disk_error(error, target) from error
    return Verdict.model_validate(outcome["verdict"]), float(outcome["wall_s"])


def _parse(texts: list[str]) -> dict[str, Path]:
    parsed = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not path:
            raise InputError(
                f"expected NAME=PATH, got '{text}'", hint="stages: " + ", ".join(STAGES)
            )
        parsed[name] = absolute(Path(path))
    return parsed
