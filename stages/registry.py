"""All stages, in the order of the data's way."""

from pipeline.errors import InputError
from pipeline.suggest import nearest
from stages import evaluate, ingest, matches, mesh, report, scene, sfm, train
from stages.base import Stage

STAGES: dict[str, Stage] = {
    module.STAGE.name: module.STAGE
    for module in (ingest, sfm, scene, matches, train, mesh, evaluate, report)
}


def find_stage(name: str) -> Stage:
    """The stage of that name.

    Raises:
        InputError: no such stage; the nearest name is suggested.
    """
    if name not in STAGES:
        raise InputError(f"unknown stage '{name}'{nearest(name, STAGES)}", hint=_all_names())
    return STAGES[name]


def downstream(name: str) -> set[str]:
    """Names of the stage itself and of all stages that depend on it."""
    reached = {name}
    for stage in STAGES.values():  # in order, so one pass suffices
        if reached.intersection(stage.inputs):
            reached.add(stage.name)
    return reached


def upstream(name: str) -> set[str]:
    """Names of the stage itself and of all stages that it depends on."""
    reached = {name}
    for stage in reversed(STAGES.values()):
        if stage.name in reached:
            reached.update(stage.inputs)
    return reached


def _all_names() -> str:
    return "stages: " + ", ".join(STAGES)
