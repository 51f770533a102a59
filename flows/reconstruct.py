"""The Prefect flow: from a folder of photos to a measured mesh, stage by stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.runtime import flow_run
from prefect.states import State
from prefect.tasks import exponential_backoff

from flows.alive import show_alive
from flows.case_folder import CaseFolder, StageState
from flows.execute import make_artifact
from flows.listeners import StageListener, current_reporter
from flows.plan import Choice, differences, make_recipe, previous_manifest
from flows.prefect_sink import PrefectSink, publish_report
from flows.request import RunRequest, case_name, open_run
from flows.server import home, server_name
from flows.stage_process import StageCrashed
from pipeline.errors import PorfError
from pipeline.store.manifest import Manifest, Recipe
from stages.registry import route

RETRIES = 2


def _run_name() -> str:
    request = flow_run.parameters["request"]
    if isinstance(request, dict):
        request = RunRequest.model_validate(request)
    return f"{case_name(request.photos)} @ {request.preset}"


@flow(name="reconstruct", flow_run_name=_run_name, validate_parameters=True)
def reconstruct(request: RunRequest) -> dict[str, str]:
    """Bring every wanted stage of a case up to date; returns the keys of the results by stage."""
    folder, settings, choice, external = open_run(request)
    made: dict[str, Manifest] = {}
    stages = route(external)
    show_alive(home(), flow_run.id, server_name())
    try:
        for name in choice.wanted:
            recipe = make_recipe(
                stages[name], settings, {n: m.content for n, m in made.items()}, external
            )
            made[name] = _bring_up_to_date(folder, request, settings, recipe, made, choice)
    finally:
        removed = folder.publish_results(made)
        _remember(folder, made)
        if removed:
            current_reporter().say("results", _removed_text(removed))
    if "report" in made:
        publish_report(folder, made)
    return {name: manifest.key for name, manifest in made.items()}


def _bring_up_to_date(
    folder: CaseFolder,
    request: RunRequest,
    settings: Any,
    recipe: Recipe,
    made: Mapping[str, Manifest],
    choice: Choice,
) -> Manifest:
    """Have the stage computed, or cached; the store is read back, since it is the truth."""
    name, reporter = recipe.stage, current_reporter()
    reasons = _reasons(folder, recipe, name in choice.forced)
    if reasons:
        reporter.stage_starts(name, reasons)
    run_stage.with_options(
        name=name, task_run_name=f"{name} {recipe.key[:8]}", refresh_cache=bool(reasons)
    )(
        stage=name,
        key=recipe.key,
        out=str(folder.root),
        recipe=recipe.model_dump(mode="json"),
        upstream={n: made[n].key for n in recipe.inputs},
        external={role: str(request.paths[role]) for role in recipe.external},
        options=getattr(settings, name).model_dump(mode="json"),
        force=name in choice.forced,
    )
    manifest, problem = folder.store.find(name, recipe.key)
    if manifest is None:
        raise PorfError(f"the result of {name} vanished after it was made: {problem}")
    if reasons:
        reporter.stage_done(name, manifest.wall_s, manifest.verdict.reasons)
    else:
        folder.save_state(name, StageState(status="cached", key=recipe.key))
        reporter.stage_cached(name)
    return manifest


def _reasons(folder: CaseFolder, recipe: Recipe, forced: bool) -> list[str]:
    if forced:
        return ["forced"]
    manifest, problem = folder.store.find(recipe.stage, recipe.key)
    if manifest:
        return []
    if problem != "not made yet":
        return [problem]
    previous = previous_manifest(folder, recipe.stage)
    changes = differences(previous.recipe, recipe) if previous else []
    resumes = folder.store.work(recipe.stage, recipe.key).is_dir()
    return ["continues where it was interrupted"] if resumes else changes or [problem]


def _cache_key(context: TaskRunContext, parameters: dict[str, Any]) -> str:
    return f"{parameters['stage']}-{parameters['key']}"


def _worth_retrying(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Crashes deserve another attempt; refused input and full disks do not."""
    try:
        state.result()
    except PorfError as error:
        if isinstance(error, StageCrashed):
            current_reporter().say("retry", f"{error.message}; trying again", warning=True)
            return True
        return False
    except Exception:
        return False
    return False


@task(
    cache_policy=CacheKeyFnPolicy(cache_key_fn=_cache_key),
    persist_result=True,
    result_serializer="json",
    retries=RETRIES,
    retry_delay_seconds=exponential_backoff(1),
    retry_condition_fn=_worth_retrying,
)
def run_stage(
    stage: str,
    key: str,
    out: str,
    recipe: dict[str, Any],
    upstream: dict[str, str],
    external: dict[str, str],
    options: dict[str, Any],
    force: bool,
) -> dict[str, Any]:
    """Make one stage's artifact in a process of its own; returns its key and verdict."""
    folder = CaseFolder(Path(out))
    with PrefectSink.of_this_run(stage) as sink:
        manifest = make_artifact(
            folder,
            Recipe.model_validate(recipe),
            {name: _known(folder, name, key) for name, key in upstream.items()},
            {role: Path(path) for role, path in external.items()},
            options,
            force,
            StageListener(stage, current_reporter(), sink),
        )
    return {"stage": stage, "key": key, "verdict": manifest.verdict.status}


def _known(folder: CaseFolder, stage: str, key: str) -> Manifest:
    manifest, problem = folder.store.find(stage, key)
    if manifest is None:
        raise PorfError(f"the result of {stage} is gone: {problem}")
    return manifest


def _remember(folder: CaseFolder, made: Mapping[str, Manifest]) -> None:
    record = folder.load_record()
    run_id = flow_run.id
    folder.save_record(
        record.model_copy(
            update={
                "keys": {**record.keys, **{n: m.key for n, m in made.items()}},
                "flow_run_id": str(run_id) if run_id else None,
            }
        )
    )


def _removed_text(removed: list[str]) -> str:
    return (
        f"removed from the results, since they belong to other options: {', '.join(removed)}"
        " (still in the store)"
    )
