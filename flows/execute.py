"""Make one stage's artifact: lock, adopt or build, publish."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.case_folder import CaseFolder, StageState
from flows.devices import gpu_slot, porf_home, visible_gpus, wants_gpu
from flows.listeners import StageListener
from flows.stage_process import run_stage_process
from pipeline.errors import PorfError
from pipeline.store.files import disk_error, is_disk_error, remove
from pipeline.store.manifest import Manifest, Recipe
from pipeline.verdict import Verdict
from stages.process import StageRequest
from stages.registry import STAGES


def make_artifact(
    folder: CaseFolder,
    recipe: Recipe,
    upstream: Mapping[str, Manifest],
    external: Mapping[str, Path],
    options: Mapping[str, object],
    force: bool,
    listener: StageListener,
) -> Manifest:
    """Compute a stage and publish its artifact, or adopt the one that another run published.

    Raises:
        InputError: bad input, or a disk that is full or cannot be written.
        StageRefused, StageCrashed: see `run_stage_process`.
    """
    store, stage, key = folder.store, recipe.stage, recipe.key
    waits = "another run computes this stage; waiting for its result"
    try:
        with store.lock(stage, key, on_wait=lambda: listener.note(waits)):
            found, _ = store.find(stage, key)
            if found and not force:
                return found
            if force:
                remove(store.work(stage, key))
            folder.save_state(stage, StageState(status="running", key=key))
            manifest = _build(folder, recipe, upstream, external, options, listener)
            folder.save_state(stage, StageState(status="done", key=key))
            return manifest
    except PorfError as error:
        _record_failure(folder, recipe, error)
        raise
    except OSError as error:
        if not is_disk_error(error):
            raise
        raise disk_error(error, folder.root) from error


def _build(
    folder: CaseFolder,
    recipe: Recipe,
    upstream: Mapping[str, Manifest],
    external: Mapping[str, Path],
    options: Mapping[str, object],
    listener: StageListener,
) -> Manifest:
    store = folder.store
    work = store.work(recipe.stage, recipe.key)
    work.mkdir(parents=True, exist_ok=True)
    with store.building(recipe.stage, recipe.key) as out:
        request = StageRequest(
            stage=recipe.stage,
            options=dict(options),
            seed=recipe.seed,
            inputs={n: store.artifact(n, upstream[n].key) for n in recipe.inputs},
            external={role: external[role] for role in recipe.external},
            manifests={n: m.model_dump(mode="json") for n, m in upstream.items()},
            out=out,
            work=work,
            outcome=work / "outcome.json",
        )
        outcome = _run(request, listener)
        manifest = store.publish(
            out,
            Manifest(
                recipe=recipe,
                key=recipe.key,
                files={},
                paths={role: str(external[role]) for role in recipe.external},
                verdict=Verdict.model_validate(outcome.pop("verdict")),
                **outcome,
            ),
        )
    remove(work)
    return manifest


def _run(request: StageRequest, listener: StageListener) -> dict[str, Any]:
    """Run the stage's process, on a GPU of its own where it uses one."""
    gpus = visible_gpus() if wants_gpu(STAGES[request.stage], request.options) else []
    waits = "all GPUs are busy; waiting for one"
    with gpu_slot(gpus, porf_home() / "devices", lambda: listener.note(waits)) as gpu:
        environment = {"CUDA_VISIBLE_DEVICES": gpu.name} if gpu else {}
        return run_stage_process(request, listener.event, environment)


def _record_failure(folder: CaseFolder, recipe: Recipe, error: PorfError) -> None:
    state = StageState(status="failed", key=recipe.key, reason=error.message)
    try:
        folder.save_state(recipe.stage, state)
    except OSError:
        return  # the disk that failed the stage fails the record too
