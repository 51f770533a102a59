"""Measures as a person reads them: name, value, unit, what it means and how it was taken."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.heldout import INLIER_PX, EpipolarSummary
from pipeline.metrics.poses import PoseErrors, Summary
from pipeline.metrics.selfcheck import COVERED, SelfCheck
from pipeline.metrics.surface import MIN_SEEN_BY, SurfaceErrors, SurfaceProtocol
from pipeline.metrics.tracks import MIN_LENGTH

BY_ROTATIONS = (
    "cameras aligned with the truth by one rotation (mean over their own rotations), then scale "
    "and shift of their centres"
)
UMEYAMA = "cameras aligned with the truth by a similarity (Umeyama, with scale) on camera centres"
WHO = {
    "refined": "after refinement",
    "sfm": "from structure from motion",
    "given": "that were given",
}


@dataclass(frozen=True)
class Metric:
    """One measure.

    Attributes:
        name: identifier, stable between versions.
        value: None where it cannot be told.
        unit: of the value; empty for pure numbers.
        meaning: a sentence for a reader who did not take it.
        protocol: how it was taken.
    """

    name: str
    value: float | int | None
    unit: str
    meaning: str
    protocol: str

    def as_json(self) -> dict[str, Any]:
        """Plain data; values that are not finite become None."""
        plain = asdict(self)
        if isinstance(self.value, float) and not np.isfinite(self.value):
            plain["value"] = None
        return plain


def pose_metrics(errors: PoseErrors, who: str, unit: str, aligned: str = UMEYAMA) -> list[Metric]:
    """Rows for one set of cameras.

    Args:
        who: a key of `WHO`.
        unit: of lengths in the truth.
        aligned: how the cameras were laid onto the true ones, in words.
    """
    of = f"of the cameras {WHO[who]}"
    rotation, centre = Summary.of(errors.rotation_deg), Summary.of(errors.translation)
    step = "motion from each camera to the next, " + aligned
    by_span = f"{aligned}; span = largest distance between two true centres"
    own = "rotations aligned on themselves by one rotation of the world"
    frame = f"{aligned}; residual rotations in the cameras' own frames"
    percent = 100 * centre.mean / errors.camera_span
    self_aligned_deg = float(errors.rotation_self_aligned_deg.mean())
    step_turn = Summary.of(errors.relative_rotation_deg)
    step_shift = Summary.of(errors.relative_translation)
    step_deg, step_length = step_turn.mean, step_shift.mean

    def row(name: str, value: float, unit: str, meaning: str, protocol: str = aligned) -> Metric:
        return Metric(f"{name}_{who}", float(value), unit, meaning, protocol)

    return [
        row("rotation_mean", rotation.mean, "deg", f"mean rotation error {of}"),
        row("rotation_median", rotation.median, "deg", f"median rotation error {of}"),
        row("rotation_rmse", rotation.rmse, "deg", f"root mean square rotation error {of}"),
        row("rotation_max", rotation.max, "deg", f"largest rotation error {of}"),
        row("translation_mean", centre.mean, unit, f"mean error of the centres {of}"),
        row("translation_rmse", centre.rmse, unit, f"root mean square error of the centres {of}"),
        row("translation_max", centre.max, unit, f"largest error of the centres {of}"),
        row("translation_of_span", percent, "% of camera span",
            f"mean error of the centres {of}, against the extent of the cameras", by_span),
        row("rotation_common", errors.common_deg, "deg",
            f"part of the rotation error {of} that all share, as a wrong principal point causes",
            frame),
        row("rotation_scatter", errors.scatter_deg.mean(), "deg",
            f"mean rotation error {of} without the part that all share", frame),
        row("rotation_self_aligned", self_aligned_deg, "deg",
            f"mean rotation error {of}, whatever the centres say", own),
        row("relative_rotation", step_deg, "deg", f"mean error of successive turns {of}", step),
        row("relative_rotation_rmse", step_turn.rmse, "deg", "the same, root mean square", step),
        row("relative_translation", step_length, unit,
            f"mean error of successive displacements {of}", step),
        row("relative_translation_rmse", step_shift.rmse, unit, "the same, root mean square", step),
    ]  # fmt: skip


def surface_metrics(
    errors: SurfaceErrors, unit: str, protocol: SurfaceProtocol, alignment: str
) -> list[Metric]:
    """Rows for the mesh; lengths both against the object's radius and in the unit of the truth."""
    how = _surface_protocol(errors, protocol) + f"; {alignment}"
    accuracy, completeness = float(errors.accuracy.mean()), float(errors.completeness.mean())
    limit = f"{100 * protocol.threshold:g}% of the object's radius"
    lengths = [
        ("chamfer", errors.chamfer, "mean of surface accuracy and completeness; smaller is better"),
        ("surface_accuracy", accuracy, "mean distance of the mesh from the true surface"),
        ("surface_completeness", completeness, "mean distance of the true surface from the mesh"),
    ]
    rows = [
        Metric(f"{name}_of_radius", 100 * value / errors.radius, "% of object radius", meaning, how)
        for name, value, meaning in lengths
    ]
    rows += [Metric(name, value, unit, meaning, how) for name, value, meaning in lengths]
    rows += [
        Metric("f_score", 100 * errors.fscore, "%",
               f"harmonic mean of the shares of both surfaces within {limit} of the other", how),
        Metric("surface_precision", 100 * errors.precision, "%",
               f"share of the mesh within {limit} of the true surface", how),
        Metric("surface_recall", 100 * errors.recall, "%",
               f"share of the true surface within {limit} of the mesh", how),
        Metric("surface_capped", 100 * max(errors.capped), "%",
               "share of distances that reached the cap, the larger of both directions", how),
    ]  # fmt: skip
    meaning = "mean |cosine| between the normals of both surfaces at nearest places; at most 1"
    rows.append(Metric("normal_consistency", errors.normal_consistency, "", meaning, how))
    if errors.missed is not None:
        meaning = "share of the object's rays that meet no mesh at all"
        rows.append(Metric("surface_missed", 100 * errors.missed, "%", meaning, how))
    meaning = "radius of the true object: half of its extent around its bounding box's centre"
    rows.append(Metric("object_radius", errors.radius, unit, meaning, "from the true mesh"))
    return rows


def _surface_protocol(errors: SurfaceErrors, protocol: SurfaceProtocol) -> str:
    cap = f"distances capped at {100 * protocol.cap:g}% of the object's radius"
    spacing = f"one point in each cube of {100 * protocol.spacing:g}% of it"
    if errors.protocol == "whole surface":
        return f"whole surfaces, seen or not; {spacing}; {cap}"
    return (
        f"seen surface: accuracy where rays of the true cameras at least {protocol.margin_px:g} px "
        f"inside the object's outline first meet the mesh, completeness where at least "
        f"{MIN_SEEN_BY} cameras see the true object; {spacing}; {cap}"
    )


def epipolar_metrics(summary: EpipolarSummary | None, who: str) -> list[Metric]:
    """Rows for one set of cameras; none where no match was held out."""
    if summary is None:
        return []
    of = f"of the cameras {WHO[who]}"
    how = f"symmetric epipolar distance of {summary.matches} matches kept out of every optimisation"
    return [
        Metric(f"heldout_epipolar_median_{who}", summary.median_px, "px",
               f"median distance of held-out matches from the epipolar lines {of}", how),
        Metric(f"heldout_epipolar_mean_{who}", summary.inlier_mean_px, "px",
               f"mean of the same over matches nearer than {INLIER_PX:g} px", how),
        Metric(f"heldout_epipolar_inliers_{who}", 100 * summary.inlier_share, "%",
               f"share of held-out matches nearer than {INLIER_PX:g} px", how),
    ]  # fmt: skip


def heldout_pixels_metric(psnr_db: float) -> Metric:
    """The row for the likeness that the train stage measured on pixels it kept out."""
    return Metric(
        "psnr_heldout",
        psnr_db,
        "dB",
        "likeness of renders and photos on pixels that training never saw; larger is better",
        "blocks of 16×16 pixels of all photos, kept out by the train stage",
    )


def image_metrics(
    psnr_db: list[float], ssim: list[float], size_px: tuple[int, int], masked: bool
) -> list[Metric]:
    """Rows for the rendered views, from the values of each.

    Args:
        masked: whether only the object's pixels count.
    """
    how = (
        f"{len(psnr_db)} views spread around the object, {size_px[0]}×{size_px[1]} px, rendered "
        "with the cameras that the surface was trained with; their photos took part in training"
    )
    if masked:
        how += "; within the masks (SSIM: grey beside them)"
    return [
        Metric("psnr_mean", float(np.mean(psnr_db)), "dB",
               "mean likeness of renders and photos; larger is better", how),
        Metric("ssim_mean", float(np.mean(ssim)), "",
               "mean structural likeness of renders and photos, at most 1", how),
    ]  # fmt: skip


def reprojection_metrics(errors_px: NDArray, tracks: int, who: str) -> list[Metric]:
    """Rows for one set of cameras, from the errors (O,) of all observations; none without."""
    if len(errors_px) == 0:
        return []
    how = f"{tracks} tracks through at least {MIN_LENGTH} views, triangulated with these cameras"
    of = f"of the cameras {WHO[who]}"
    inliers = errors_px[errors_px < INLIER_PX]
    mean = float(inliers.mean()) if len(inliers) else float("nan")
    return [
        Metric(f"reprojection_median_{who}", float(np.median(errors_px)), "px",
               f"median distance of matched points from the projections {of}", how),
        Metric(f"reprojection_mean_{who}", mean, "px",
               f"mean of the same over observations nearer than {INLIER_PX:g} px", how),
    ]  # fmt: skip


def selfcheck_metrics(check: SelfCheck) -> list[Metric]:
    """Rows that need no ground truth."""
    rows = []
    if len(check.sparse_distance):
        how = f"{len(check.sparse_distance)} sparse points inside the region of interest"
        median, high = (100 * float(np.percentile(check.sparse_distance, q)) for q in (50, 90))
        rows += [
            Metric("sparse_distance_of_radius", median, "% of region radius",
                   "median distance of the triangulated points from the mesh: how far surface and "
                   "matches agree", how),
            Metric("sparse_distance_90_of_radius", high, "% of region radius",
                   "nine of ten triangulated points lie nearer to the mesh than this", how),
            Metric("coverage", 100 * check.covered, "%",
                   f"share of the triangulated points within {100 * COVERED:g}% of the region's "
                   "radius of the mesh: how much of what the photos show is there", how),
        ]  # fmt: skip
    places = check.views_per_place
    how = f"{len(places)} places spread evenly over the mesh; ray casting"
    rows += [
        Metric("views_per_place", float(np.median(places)), "",
               "photos that see a place of the mesh, median", how),
        Metric("seen_by_three", 100 * float((places >= 3).mean()), "%",
               "share of the mesh that at least three photos see: the rest rests on little", how),
    ]  # fmt: skip
    if check.silhouette_iou is not None:
        how = "intersection over union of mesh and mask in every view"
        rows += [
            Metric("silhouette_iou", 100 * float(check.silhouette_iou.mean()), "%",
                   "how far the mesh fills the masks, mean over the views", how),
            Metric("silhouette_iou_worst", 100 * float(check.silhouette_iou.min()), "%",
                   "the same in the worst view", how),
        ]  # fmt: skip
    return rows
