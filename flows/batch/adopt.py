"""Runs of one sweep share what they have in common: structure from motion is not done again."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from flows.case_folder import CaseFolder
from flows.plan import Choice, look_ahead
from flows.request import RunRequest
from flows.settings import settings_from
from pipeline.store.manifest import Manifest, Recipe
from pipeline.store.store import MANIFEST, record_files


def adopt(
    request: RunRequest,
    folder: CaseFolder,
    choice: Choice,
    external: Mapping[str, dict[str, str]],
    siblings: Iterable[Path],
) -> list[str]:
    """Copy every artifact that a run still needs and a sibling has made; returns their stages.

    Equal keys mean equal recipes, so a sibling's artifact is the one this run would make.
    """
    settings = settings_from(request.settings)
    taken: list[str] = []
    others = [CaseFolder(path) for path in siblings]
    while True:  # what was taken makes the keys of the next stages known
        prospects = look_ahead(folder, settings, external, choice)
        missing = [p.recipe for p in prospects if p.recipe and not p.manifest]
        found = [recipe.stage for recipe in missing if _take(folder, recipe, others)]
        if not found:
            return taken
        taken += found


def _take(folder: CaseFolder, recipe: Recipe, others: Iterable[CaseFolder]) -> bool:
    for other in others:
        manifest, _ = other.store.find(recipe.stage, recipe.key)
        if manifest is not None and _copy(folder, other, manifest):
            return True
    return False


def _copy(folder: CaseFolder, other: CaseFolder, manifest: Manifest) -> bool:
    stage, key = manifest.stage, manifest.key
    source = other.store.artifact(stage, key)
    with folder.store.lock(stage, key), folder.store.building(stage, key) as built:
        try:
            shutil.copytree(source, built, dirs_exist_ok=True)
        except (OSError, shutil.Error):
            return False  # replaced or freed while we copied: this run makes its own
        (built / MANIFEST).unlink(missing_ok=True)
        if record_files(built) != manifest.files:
            return False  # damaged there
        folder.store.publish(built, manifest)
    return True
