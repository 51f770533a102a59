"""The evaluation of one reconstruction: which measures, in which order, and what they mean."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import trimesh
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.idr import IdrCameras
from pipeline.formats.matches import ViewMatches
from pipeline.geometry.cameras import spread_views
from pipeline.metrics.alignment import NOT_ALIGNED, Alignment, align_cameras, align_surfaces
from pipeline.metrics.clouds import check_frames_fit
from pipeline.metrics.config import EvaluateConfig
from pipeline.metrics.distance import sample_surface
from pipeline.metrics.error_map import FILE, save_errors, vertex_errors
from pipeline.metrics.heldout import heldout_epipolar
from pipeline.metrics.poses import PoseErrors, compare_poses
from pipeline.metrics.renders import RenderedView, Renderer, render_view
from pipeline.metrics.selfcheck import check_surface
from pipeline.metrics.surface import (
    ObjectSphere,
    SurfaceErrors,
    SurfaceProtocol,
    Viewers,
    compare_surfaces,
)
from pipeline.metrics.table import (
    BY_ROTATIONS,
    UMEYAMA,
    Metric,
    epipolar_metrics,
    heldout_pixels_metric,
    image_metrics,
    pose_metrics,
    reprojection_metrics,
    selfcheck_metrics,
    surface_metrics,
)
from pipeline.metrics.tracks import reprojection_errors_px, tracks_of
from pipeline.metrics.truth import UNKNOWN_UNIT, Assignment, TrueCameras
from pipeline.progress import Progress

GROSS_ROTATION_DEG = 5.0
GROSS_CAPPED_SHARE = 0.1
LINE_LIKE = 0.01
NOTABLY_WORSE = 1.1
ICP_SPACING = 0.02
"""Surfaces are sampled this densely for ICP, in radii of the true object."""

STATED = {
    "none": "no alignment: meshes compared as they lie",
    "centres": f"mesh moved with the refined {UMEYAMA}",
    "poses": f"mesh moved with the refined {BY_ROTATIONS}",
    "icp": "mesh moved with the refined cameras' similarity, then by ICP with scale",
}


@dataclass
class Findings:
    """What an evaluation found so far.

    Attributes:
        metrics: in the order in which a person should read them.
        notes: what one must know to read the numbers right.
        warnings: what a user should look at.
        per_view: view index → named numbers.
        alignment: the similarity that carried the mesh over, or the one of the centres where no
            mesh was compared, as plain data; None without truth.
        alignments: the cameras' similarity by each method, as plain data.
        figures: the few numbers of the verdict.
    """

    metrics: list[Metric] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    per_view: dict[int, dict[str, float]] = field(default_factory=dict)
    alignment: dict[str, Any] | None = None
    alignments: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def add_view(self, index: int, **figures: float) -> None:
        """Numbers of one view."""
        self.per_view.setdefault(index, {}).update({k: float(v) for k, v in figures.items()})

    def as_json(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain data for `metrics.json`; `names` are the photo names by view index."""
        return {
            "metrics": [metric.as_json() for metric in self.metrics],
            "alignment": self.alignment,
            "alignments": self.alignments,
            "notes": self.notes,
            "per_view": [
                {"index": index, "name": names[index], **self.per_view[index]}
                for index in sorted(self.per_view)
            ],
        }


def truth_unit(truth: TrueCameras | None, config: EvaluateConfig) -> str:
    """Unit of lengths in the truth, as it is written behind a number."""
    named = truth.unit if truth is not None else UNKNOWN_UNIT
    if named == UNKNOWN_UNIT:
        return config.unit or "units of the truth"
    return named


def measure_poses(
    findings: Findings,
    truth: TrueCameras,
    assignment: Assignment,
    estimates: dict[str, IdrCameras],
    unit: str,
) -> dict[str, PoseErrors]:
    """Pose errors of each set of cameras against the truth.

    Args:
        estimates: `refined` first, then `sfm`: cameras of all registered views.
    """
    true_c2w = truth.cameras.c2w[assignment.truths]
    found = {}
    for who, cameras in estimates.items():
        errors = compare_poses(cameras.c2w[assignment.views], true_c2w)
        found[who] = errors
        findings.metrics += pose_metrics(errors, who, unit)
        findings.figures[f"rotation_{who}_deg"] = round(float(errors.rotation_deg.mean()), 4)
        for view, turn, shift in zip(
            assignment.views.tolist(), errors.rotation_deg, errors.translation, strict=True
        ):
            findings.add_view(view, **{f"rotation_{who}_deg": turn, f"translation_{who}": shift})
    _judge_poses(findings, found)
    views = len(next(iter(estimates.values())))
    if len(assignment.views) < views:
        findings.notes.append(
            f"the ground truth covers {len(assignment.views)} of {views} registered views: pose "
            "errors are over these"
        )
    if _line_likeness(true_c2w[:, :3, 3]) < LINE_LIKE:
        findings.notes.append(
            "the cameras stand nearly on one line, about which centres cannot tell the rotation: "
            "trust rotation_self_aligned"
        )
    return found


def _judge_poses(findings: Findings, found: dict[str, PoseErrors]) -> None:
    mean_deg = {who: float(errors.rotation_deg.mean()) for who, errors in found.items()}
    worst = max(mean_deg.values())
    if worst > GROSS_ROTATION_DEG:
        findings.warnings.append(
            f"the cameras are off by {worst:.1f}° on average: either the reconstruction is wrong, "
            "or the ground truth belongs to other photos or another order of them"
        )
    if {"refined", "sfm"} <= mean_deg.keys():
        before, after = mean_deg["sfm"], mean_deg["refined"]
        if after > NOTABLY_WORSE * before and after - before > 0.005:
            findings.warnings.append(
                f"refinement made the rotations worse: {before:.3f}° before, {after:.3f}° after"
            )


def _line_likeness(centres: NDArray) -> float:
    spread = np.linalg.svd(centres - centres.mean(axis=0), compute_uv=False)
    return float(spread[1] / spread[0])


def camera_alignments(
    findings: Findings, truth: TrueCameras, assignment: Assignment, refined: IdrCameras
) -> dict[str, Alignment]:
    """Lay the refined cameras onto the true ones in each way, and keep all of them."""
    estimate, true = refined.c2w[assignment.views], truth.cameras.c2w[assignment.truths]
    methods: tuple[Literal["centres", "poses"], ...] = ("centres", "poses")
    found: dict[str, Alignment] = {m: align_cameras(estimate, true, m) for m in methods}
    findings.alignments = {name: alignment.as_json() for name, alignment in found.items()}
    return {"none": NOT_ALIGNED, **found}


def frames_of(cameras: IdrCameras, sizes_px: NDArray) -> NDArray:
    """Widths and heights (N, 2) of the photos that true intrinsics belong to.

    Photos may have been downscaled since: where the principal point is not near the middle of the
    photo as it is now, sizes_px (N, 2), the frame is taken to be symmetrical about it.
    """
    from_centre = np.round(2 * cameras.K[:, :2, 2] + 1).astype(np.int64)
    fits = (np.abs(from_centre / np.maximum(sizes_px, 1) - 1) < 0.3).all(axis=1)
    return np.where(fits[:, None], sizes_px, np.maximum(from_centre, 1))


def measure_surface(
    findings: Findings,
    predicted: trimesh.Trimesh,
    true: trimesh.Trimesh,
    viewers: Viewers | None,
    alignments: dict[str, Alignment] | None,
    config: EvaluateConfig,
    unit: str,
    protocol: SurfaceProtocol,
    progress: Progress,
    out: Path,
) -> SurfaceErrors | None:
    """Distances between the reconstructed mesh and the true one; those of its vertices go to `out`.

    None, with a warning, where no cameras align the two and they do not lie in one frame: a number
    would mean nothing, and the rest of the evaluation stands without it.

    Args:
        viewers: true cameras; None where they are not known, and then nothing aligns the meshes.
        alignments: of the refined cameras, by method; None where no true cameras are known.
    """
    alignment = surface_alignment(predicted, true, alignments, config)
    if alignments is None:
        findings.warnings.append(
            "the ground-truth mesh came without cameras, so nothing aligns it with the "
            "reconstruction, whose frame and scale are arbitrary: the surface distances mean "
            "nothing unless both frames are the same; give --ground-truth as well"
        )
        try:
            check_frames_fit(predicted.vertices, np.asarray(true.vertices), "the reconstruction")
        except InputError as error:
            findings.warnings.append(f"no surface distance is given: {error.message}")
            return None
    findings.alignment = alignment.as_json()
    surface = compare_surfaces(predicted, true, alignment.similarity, viewers, protocol, progress)
    findings.metrics += surface_metrics(surface, unit, protocol, STATED[alignment.method])
    distances = vertex_errors(
        predicted, true, alignment.similarity, surface.places, protocol.spacing
    )
    save_errors(out / FILE, distances, protocol)
    chamfer_percent = 100 * surface.chamfer / surface.radius
    findings.figures["chamfer_percent_of_radius"] = round(chamfer_percent, 4)
    if max(surface.capped) > GROSS_CAPPED_SHARE:
        findings.warnings.append(
            f"{max(surface.capped):.0%} of the surface distances reached the cap of "
            f"{100 * protocol.cap:g}% of the object's radius: the Chamfer distance is a lower bound"
        )
    return surface


def surface_alignment(
    predicted: trimesh.Trimesh,
    true: trimesh.Trimesh,
    alignments: dict[str, Alignment] | None,
    config: EvaluateConfig,
) -> Alignment:
    """The alignment that the options ask for; as it lies where there are no cameras."""
    if alignments is None:
        return NOT_ALIGNED
    if config.alignment != "icp":
        return alignments[config.alignment]
    start = alignments["centres"].similarity
    sphere = ObjectSphere.of(np.asarray(true.vertices))
    spacing = ICP_SPACING * sphere.radius
    on_true = sample_surface(true.vertices, true.faces, spacing)
    on_predicted = sample_surface(predicted.vertices, predicted.faces, spacing / start.scale)
    return align_surfaces(on_predicted, on_true, sphere.radius, start, with_scale=True)


def measure_surface_itself(
    findings: Findings,
    mesh: trimesh.Trimesh,
    cameras: IdrCameras,
    size_px: tuple[int, int],
    sparse_points: NDArray,
    mask_paths: Sequence[Path] | None,
) -> None:
    """Sparse points, coverage and silhouettes: what needs no ground truth."""
    check = check_surface(mesh, cameras, size_px, sparse_points, mask_paths)
    findings.metrics += selfcheck_metrics(check)
    if check.silhouette_iou is not None:
        findings.figures["silhouette_iou"] = round(float(check.silhouette_iou.mean()), 4)
        for view, value in enumerate(check.silhouette_iou):
            findings.add_view(view, silhouette_iou=value)


def measure_reprojection(
    findings: Findings, matches: Sequence[ViewMatches], estimates: dict[str, IdrCameras]
) -> None:
    """Reprojection error of the matches' tracks for each set of cameras."""
    tracks = tracks_of(matches)
    for who, cameras in estimates.items():
        errors_px = reprojection_errors_px(tracks, cameras.K, cameras.c2w)
        findings.metrics += reprojection_metrics(errors_px, len(tracks), who)


def measure_heldout(
    findings: Findings, matches: Sequence[ViewMatches], estimates: dict[str, IdrCameras]
) -> None:
    """Epipolar error of held-out matches for each set of cameras."""
    for who, cameras in estimates.items():
        summary = heldout_epipolar(matches, cameras.K, cameras.c2w)
        findings.metrics += epipolar_metrics(summary, who)
        if summary is None:
            findings.notes.append("no match was held out: no epipolar error can be told")
            return
        findings.figures[f"heldout_epipolar_{who}_px"] = round(summary.median_px, 4)


def measure_heldout_pixels(findings: Findings, train_figures: dict[str, Any]) -> None:
    """Take over the likeness on pixels that training kept out, where it measured one."""
    value = train_figures.get("psnr_heldout_db")
    if value is not None:
        findings.metrics.append(heldout_pixels_metric(float(value)))
        findings.figures["psnr_heldout_db"] = round(float(value), 2)


def measure_renders(
    findings: Findings,
    model: Renderer,
    image_paths: Sequence[Path],
    mask_paths: Sequence[Path] | None,
    config: EvaluateConfig,
    out: Path,
    progress: Progress,
) -> list[RenderedView]:
    """Render views that lie far apart into `out`, and compare them with their photos."""
    rendered = []
    chosen = spread_views(model.c2w[:, :3, 3], config.views)
    for done, index in enumerate(chosen):
        progress.advance("renders", done, len(chosen))
        mask_path = mask_paths[index] if mask_paths is not None else None
        view = render_view(model, index, image_paths[index], mask_path, config.max_side_px, out)
        findings.add_view(index, psnr_db=view.psnr_db, ssim=view.ssim)
        rendered.append(view)
    progress.advance("renders", len(chosen), len(chosen))
    psnr_db = [view.psnr_db for view in rendered]
    findings.metrics += image_metrics(
        psnr_db, [view.ssim for view in rendered], rendered[0].size_px, mask_paths is not None
    )
    findings.figures["psnr_db"] = round(float(np.mean(psnr_db)), 2)
    return rendered


def surface_protocol(config: EvaluateConfig) -> SurfaceProtocol:
    """The options that say how surfaces are measured."""
    return SurfaceProtocol(
        config.spacing, config.cap, config.threshold, config.rays_per_view, config.margin_px
    )
