"""All stages and how they hang together, in the order of the data's way."""

from collections.abc import Collection
from dataclasses import replace

from pipeline.errors import InputError
from pipeline.imaging.config import IngestConfig
from pipeline.metrics.config import EvaluateConfig
from pipeline.porf.config import TrainConfig
from pipeline.report.config import ReportConfig
from pipeline.sfm.config import MatchesConfig, SceneConfig, SfmConfig
from pipeline.suggest import nearest
from pipeline.surface.config import MeshConfig
from stages.base import Stage
from stages.checks import check_cameras, check_case, check_ground_truth, check_photos

_IN_ORDER = (
    Stage(
        name="ingest",
        version=3,
        config_type=IngestConfig,
        inputs=(),
        external=("photos", "masks"),
        description="photos checked, turned upright and brought to a bounded size",
        check=check_photos,
    ),
    Stage(
        name="sfm",
        version=6,
        config_type=SfmConfig,
        inputs=("ingest",),
        external=("cameras",),
        description="camera poses, self-calibrated intrinsics and sparse points",
        check=check_cameras,
    ),
    Stage(
        name="scene",
        version=4,
        config_type=SceneConfig,
        inputs=("ingest", "sfm"),
        external=("case",),
        entry="case",
        check=check_case,
        description="undistorted views of one size, cameras and the region of interest",
        results=("image", "mask", "cameras_colmap.npz", "views.json"),
    ),
    Stage(
        name="matches",
        version=1,
        config_type=MatchesConfig,
        inputs=("ingest", "sfm", "scene"),
        external=("case",),
        entry="case",
        description="verified matches in undistorted pixels, by view, from both sides",
        results=("colmap_matches",),
    ),
    Stage(
        name="train",
        version=7,
        config_type=TrainConfig,
        inputs=("scene", "matches"),
        description="joint training of cameras (PoRF) and surface",
        results=("cameras_refine_porf.npz", "refined_pose.txt"),
    ),
    Stage(
        name="mesh",
        version=5,
        config_type=MeshConfig,
        inputs=("scene", "train"),
        description="the trained field as a cleaned, coloured mesh",
        results=(
            "mesh.ply",
            "mesh.glb",
            "mesh_textured.glb",
            "mesh.obj",
            "mesh.mtl",
            "mesh_texture.png",
        ),
    ),
    Stage(
        name="evaluate",
        version=3,
        config_type=EvaluateConfig,
        inputs=("ingest", "scene", "matches", "train", "mesh"),
        external=("ground_truth", "ground_truth_mesh"),
        description="errors against ground truth where it is given, held-out and image measures",
        results=("metrics.json",),
        check=check_ground_truth,
    ),
    Stage(
        name="report",
        version=4,
        config_type=ReportConfig,
        inputs=("ingest", "sfm", "matches", "scene", "train", "mesh", "evaluate"),
        description="one page about the run, with its pictures",
        results=("report.html",),
    ),
)

STAGES: dict[str, Stage] = {stage.name: stage for stage in _IN_ORDER}


def find_stage(name: str) -> Stage:
    """The stage of that name.

    Raises:
        InputError: no such stage; the nearest name is suggested.
    """
    if name not in STAGES:
        raise InputError(f"unknown stage '{name}'{nearest(name, STAGES)}", hint=_all_names())
    return STAGES[name]


def route(roles: Collection[str]) -> dict[str, Stage]:
    """The stages of a run that is given user files of these roles, each with what it then reads.

    Stages that such files enter read no other stage, and what would come before them is left out.
    """
    entered = {stage.name for stage in STAGES.values() if stage.entry in roles}
    skipped = {name for stage in entered for name in upstream(stage)} - entered
    stages = {}
    for stage in STAGES.values():
        if stage.name not in skipped:
            kept = () if stage.name in entered else stage.inputs
            stages[stage.name] = replace(stage, inputs=tuple(n for n in kept if n not in skipped))
    return stages


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
