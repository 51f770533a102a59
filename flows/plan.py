"""What would run, and why: recipes from options, user files and upstream contents."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.case_folder import CaseFolder, names
from pipeline.errors import InputError
from pipeline.formats.camera_files import find_cameras
from pipeline.formats.case_files import case_files
from pipeline.store.digest import HashCache, fingerprint
from pipeline.store.manifest import Manifest, Recipe
from stages.base import Stage
from stages.registry import downstream, find_stage, route, upstream

COMPANIONS = {"ground_truth": ("image_names.json",), "cameras": ("image_names.json",)}
"""Files beside a user's file that say what it means."""


@dataclass(frozen=True)
class Choice:
    """Which stages a command wants, by name.

    Attributes:
        wanted: to be there at the end.
        forced: to be computed anew even where a result exists.
    """

    wanted: tuple[str, ...]
    forced: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        start: str | None = None,
        stop: str | None = None,
        force: Iterable[str] = (),
        roles: Collection[str] = (),
    ) -> "Choice":
        """From `--from`, `--to` and `--force`, and the roles of the user's files.

        Raises:
            InputError: an unknown stage, or one that a run from such files does not have.
        """
        stages = route(roles)
        force = list(force)
        for name in (start, stop, *force):
            if name and find_stage(name).name not in stages:
                raise InputError(
                    f"a run that starts from a case has no stage '{name}'",
                    hint="its stages: " + ", ".join(stages),
                )
        wanted = upstream(stop) if stop else set(stages)
        forced = {*force, *(downstream(start) if start else ())}
        return cls(tuple(n for n in stages if n in wanted), frozenset(forced & wanted))


@dataclass
class Prospect:
    """What a stage would do.

    Attributes:
        stage: name.
        recipe: None where an upstream result is not known yet.
        manifest: of the sound artifact that is there already.
        reasons: why it would run; empty where the artifact serves.
    """

    stage: str
    recipe: Recipe | None
    manifest: Manifest | None
    reasons: list[str] = field(default_factory=list)


def external_files(
    paths: Mapping[str, Path], cache: HashCache, roles: Iterable[str] | None = None
) -> dict[str, dict[str, str]]:
    """SHA-256 of the user's files by role and name."""
    wanted = paths if roles is None else [role for role in paths if role in set(roles)]
    found = {role: _fingerprint(role, paths[role], cache) for role in wanted}
    cache.save()
    return found


def _fingerprint(role: str, path: Path, cache: HashCache) -> dict[str, str]:
    if role == "case":
        files = case_files(path)
    elif role == "cameras" and path.is_dir():
        # of a whole capture only the files that hold the cameras count
        files = find_cameras(path).files
    else:
        return fingerprint(path, cache, COMPANIONS.get(role, ()))
    return {str(p.relative_to(path)): cache.sha256(p.absolute()) for p in files}


def make_recipe(
    stage: Stage, settings: Any, contents: Mapping[str, str], external: Mapping[str, dict[str, str]]
) -> Recipe:
    """The identity of a stage's result."""
    return Recipe(
        stage=stage.name,
        version=stage.version,
        options=getattr(settings, stage.name).key_options(),
        seed=settings.seed,
        inputs={name: contents[name] for name in stage.inputs},
        external={role: external[role] for role in stage.external if role in external},
    )


def look_ahead(
    folder: CaseFolder,
    settings: Any,
    external: Mapping[str, dict[str, str]],
    choice: Choice,
    deep: bool = False,
) -> list[Prospect]:
    """What each wanted stage would do, in order, without doing anything."""
    contents: dict[str, str] = {}
    prospects = []
    stages = route(external)
    for name in choice.wanted:
        prospect = _prospect(folder, stages[name], settings, contents, external, deep)
        if name in choice.forced:
            prospect.reasons.insert(0, "forced")
        if prospect.manifest and not prospect.reasons:
            contents[name] = prospect.manifest.content
        prospects.append(prospect)
    return prospects


def _prospect(
    folder: CaseFolder,
    stage: Stage,
    settings: Any,
    contents: Mapping[str, str],
    external: Mapping[str, dict[str, str]],
    deep: bool,
) -> Prospect:
    unknown = [name for name in stage.inputs if name not in contents]
    if unknown:
        first = f"runs if the result of {' or '.join(unknown)} changes"
        return Prospect(stage.name, None, None, [*_own_changes(folder, stage, settings), first])
    recipe = make_recipe(stage, settings, contents, external)
    manifest, problem = folder.store.find(stage.name, recipe.key, deep)
    if manifest:
        return Prospect(stage.name, recipe, manifest)
    if problem == "not made yet":
        previous = previous_manifest(folder, stage.name)
        reasons = differences(previous.recipe, recipe) if previous else []
        return Prospect(stage.name, recipe, None, reasons or [problem])
    return Prospect(stage.name, recipe, None, [problem])


def previous_manifest(folder: CaseFolder, stage: str) -> Manifest | None:
    """The result that the last successful run of a stage used, or its newest one."""
    state = folder.load_state(stage)
    if state:
        manifest, _ = folder.store.find(stage, state.key)
        if manifest:
            return manifest
    return next(iter(folder.store.manifests(stage)), None)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """What changed between two recipes of a stage, one clause a change."""
    found = []
    if old.version != new.version:
        found.append(f"code version {old.version} → {new.version}")
    found += option_changes(new.stage, old.options, new.options)
    if old.seed != new.seed:
        found.append(f"seed {old.seed} → {new.seed}")
    found += [
        f"result of {name} changed"
        for name, content in new.inputs.items()
        if old.inputs.get(name) != content
    ]
    for role in sorted({*old.external, *new.external}):
        found += file_changes(role, old.external.get(role), new.external.get(role))
    return found


def option_changes(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`stage.option old → new` for every option that differs."""
    found = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += option_changes(f"{prefix}.{name}", before, after)
        elif before != after:
            found.append(f"{prefix}.{name} {_shown(before)} → {_shown(after)}")
    return found


def file_changes(
    role: str, old: Mapping[str, str] | None, new: Mapping[str, str] | None
) -> list[str]:
    """Which of the user's files came, went or changed."""
    label = role.replace("_", " ")
    if old is None or new is None:
        return [] if old == new else [f"{label} {'added' if old is None else 'no longer given'}"]
    found = []
    for verb, changed in (
        ("added", new.keys() - old.keys()),
        ("removed", old.keys() - new.keys()),
        ("changed", {n for n in new.keys() & old.keys() if new[n] != old[n]}),
    ):
        if changed:
            found.append(f"{label}: {names(changed)} {verb}")
    return found


def _own_changes(folder: CaseFolder, stage: Stage, settings: Any) -> list[str]:
    previous = previous_manifest(folder, stage.name)
    if previous is None:
        return ["not made yet"]
    options = getattr(settings, stage.name).key_options()
    found = option_changes(stage.name, previous.recipe.options, options)
    if previous.recipe.version != stage.version:
        found.insert(0, f"code version {previous.recipe.version} → {stage.version}")
    return found


def _shown(value: Any) -> str:
    return "unset" if value is None else str(value)
