"""Stage `evaluate`: measures against the truth where it is given, and without where it is not."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.case import common_size, sorted_images
from pipeline.formats.idr import IdrCameras, load_idr_cameras
from pipeline.formats.matches import load_matches
from pipeline.formats.views import ViewRecord, load_views, registered_names
from pipeline.imaging.records import IngestRecord, load_ingest
from pipeline.metrics.alignment import Alignment
from pipeline.metrics.config import EvaluateConfig
from pipeline.metrics.evaluation import (
    Findings,
    camera_alignments,
    frames_of,
    measure_heldout,
    measure_heldout_pixels,
    measure_poses,
    measure_renders,
    measure_reprojection,
    measure_surface,
    measure_surface_itself,
    surface_protocol,
    truth_unit,
)
from pipeline.metrics.surface import Viewers
from pipeline.metrics.truth import (
    Assignment,
    TrueCameras,
    assign_truth,
    load_ground_truth_cameras,
    load_mesh,
)
from pipeline.porf.gate import OWN_SHARE, with_heldout_marks
from pipeline.porf.trained import load_trained
from pipeline.store.files import write_json
from pipeline.verdict import Verdict
from stages.base import StageContext


def run(ctx: StageContext) -> Verdict:
    """Write `metrics.json` and `renders/<index>_{photo,render,normal,error}.png`.

    With a true mesh also `surface_error.npz`: how far each vertex of the mesh that counts is from
    it.
    """
    config: EvaluateConfig = ctx.config
    scene_dir, train_dir = ctx.inputs["scene"], ctx.inputs["train"]
    views = load_views(scene_dir / "views.json")
    names = registered_names(views)
    estimates = {
        "refined": load_idr_cameras(train_dir / "cameras_refine_porf.npz"),
        "sfm": load_idr_cameras(scene_dir / "cameras_colmap.npz"),
    }
    _check_counts(names, estimates)
    findings = Findings()
    _measure_against_truth(ctx, findings, views, estimates)
    matches = load_matches(ctx.inputs["matches"] / "colmap_matches", len(names))
    figures = _train_figures(train_dir)
    share = float(figures.get("heldout_share", OWN_SHARE))
    measure_heldout(findings, with_heldout_marks(matches, ctx.seed, share), estimates)
    model = load_trained(train_dir, device=config.device)
    images = sorted_images(scene_dir / "image")
    masks = sorted_images(scene_dir / "mask") if (scene_dir / "mask").is_dir() else None
    measure_reprojection(findings, matches, estimates)
    measure_surface_itself(
        findings,
        load_mesh(ctx.inputs["mesh"] / "mesh.ply"),
        estimates["refined"],
        common_size(images[:1]),
        _sparse_points(scene_dir),
        masks,
    )
    measure_renders(findings, model, images, masks, config, ctx.out / "renders", ctx.progress)
    measure_heldout_pixels(findings, figures)
    write_json(ctx.out / "metrics.json", findings.as_json(names))
    verdict = Verdict.from_warnings(findings.warnings, **findings.figures)
    verdict.settings["device"] = str(model.device)
    return verdict


def _measure_against_truth(
    ctx: StageContext,
    findings: Findings,
    views: list[ViewRecord],
    estimates: dict[str, IdrCameras],
) -> None:
    config: EvaluateConfig = ctx.config
    truth, true_mesh = _true_cameras(ctx.external), _true_mesh(ctx.external)
    unit = truth_unit(truth, config)
    alignments: dict[str, Alignment] | None = None
    viewers: Viewers | None = None
    if truth is not None:
        ingest = _ingest(ctx)
        assignment = assign_truth(
            truth, _photo_names(views, ingest, len(truth.cameras)), registered_names(views)
        )
        measure_poses(findings, truth, assignment, estimates, unit)
        alignments = camera_alignments(findings, truth, assignment, estimates["refined"])
        findings.alignment = alignments["centres"].as_json()
        viewers = _viewers(ctx, truth, assignment, registered_names(views), ingest)
    if true_mesh is not None:
        predicted = load_mesh(ctx.inputs["mesh"] / "mesh.ply")
        measure_surface(
            findings,
            predicted,
            true_mesh,
            viewers,
            alignments,
            config,
            unit,
            surface_protocol(config),
            ctx.progress,
            ctx.out,
        )
    if truth is None and true_mesh is None:
        findings.notes.append("no ground truth was given: measures that need none only")


def _true_cameras(external: Mapping[str, Path]) -> TrueCameras | None:
    path = external.get("ground_truth")
    return load_ground_truth_cameras(path) if path is not None else None


def _true_mesh(external: Mapping[str, Path]) -> trimesh.Trimesh | None:
    path = external.get("ground_truth_mesh")
    return load_mesh(path) if path is not None else None


def _ingest(ctx: StageContext) -> IngestRecord | None:
    """The record of the photos; a run that entered with a case has none."""
    if "ingest" not in ctx.inputs:
        return None
    return load_ingest(ctx.inputs["ingest"] / "ingest.json")


def _photo_names(views: list[ViewRecord], ingest: IngestRecord | None, cameras: int) -> list[str]:
    """Names of the photos that nameless true cameras are counted by.

    Files that were no usable photos may or may not have a camera: the counts tell.
    """
    usable = [photo.name for photo in ingest.used] if ingest else []
    return usable if len(usable) == cameras else [view.name for view in views]


def _viewers(
    ctx: StageContext,
    truth: TrueCameras,
    assignment: Assignment,
    names: list[str],
    ingest: IngestRecord | None,
) -> Viewers:
    """The true cameras of the registered views, with the sizes of their photos."""
    if ingest is not None:
        sizes = {photo.name: (photo.width, photo.height) for photo in ingest.used}
    else:
        sizes = dict.fromkeys(names, common_size(sorted_images(ctx.inputs["scene"] / "image")[:1]))
    cameras = IdrCameras(
        truth.cameras.K[assignment.truths],
        truth.cameras.c2w[assignment.truths],
        truth.cameras.scale_mat,
    )
    now = np.array([sizes.get(names[view], (0, 0)) for view in assignment.views])
    return Viewers(cameras.K, cameras.c2w, frames_of(cameras, now))


def _train_figures(train_dir: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((train_dir / "train.json").read_bytes())["figures"]
    return figures


def _sparse_points(scene_dir: Path) -> NDArray:
    """Triangulated points (P, 3), world frame; none in a case from elsewhere."""
    path = scene_dir / "sparse.npz"
    if not path.exists():
        return np.zeros((0, 3))
    with np.load(path) as sparse:
        points: NDArray = sparse["points"]
    return points


def _check_counts(names: list[str], estimates: dict[str, IdrCameras]) -> None:
    for who, cameras in estimates.items():
        if len(cameras) != len(names):
            raise InputError(
                f"{len(names)} registered views, but {len(cameras)} {who} cameras",
                hint="run the stages `scene` and `train` again on the same photos",
            )
