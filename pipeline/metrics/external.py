"""Evaluation of any mesh, any cameras and any renders by a named protocol, outside of a run."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.errors import InputError
from pipeline.metrics.alignment import (
    NOT_ALIGNED,
    Alignment,
    align_cameras,
    align_surfaces,
    load_transform,
)
from pipeline.metrics.clouds import (
    Prediction,
    check_frames_fit,
    extent,
    load_points,
    load_prediction,
)
from pipeline.metrics.distance import sample_surface
from pipeline.metrics.dtu import evaluate_dtu, load_dtu_reference
from pipeline.metrics.evaluation import frames_of
from pipeline.metrics.image_pairs import compare_folders
from pipeline.metrics.mobilebrick import SAMPLES, evaluate_mobilebrick, load_brick_reference
from pipeline.metrics.poses import compare_poses
from pipeline.metrics.protocol_table import (
    dtu_metrics,
    image_pair_metrics,
    mobilebrick_metrics,
    tanks_metrics,
)
from pipeline.metrics.surface import SurfaceProtocol, Viewers, compare_surfaces
from pipeline.metrics.table import (
    BY_ROTATIONS,
    UMEYAMA,
    Metric,
    pose_metrics,
    surface_metrics,
)
from pipeline.metrics.tanks import TAU_M, evaluate_tanks, load_crop_volume
from pipeline.metrics.trajectories import Trajectory, load_trajectory, pair_cameras

ProtocolName = Literal["dtu", "mobilebrick", "tanks_and_temples", "mesh", "poses", "images"]
AlignName = Literal["auto", "none", "centres", "poses", "icp"]
GIVEN = "given"
REFERENCE_SPACING = 0.02
"""True surfaces are sampled this densely to align by, radii of the object."""


@dataclass(frozen=True)
class Question:
    """What is to be measured against what.

    Attributes:
        protocol: by name.
        prediction: mesh, cameras or folder of renders.
        ground_truth: what the protocol compares with.
        align: how the prediction is laid onto the truth; `auto` = by camera centres where cameras
            are given, else as it lies.
        cameras, true_cameras: estimated and true cameras of the same photos.
        transform: a 4×4 similarity, prediction → truth, instead of cameras.
        unit: of the ground truth.
        scan: of DTU.
        scene, tau, crop, refine: of Tanks and Temples; τ by scene or as a number.
        samples: of MobileBrick, points a surface.
        threshold: of `mesh`, share of the object's radius below which a point counts as right.
        masks: folder of masks (`images`).
        seed: of whatever is drawn at random.
    """

    protocol: ProtocolName
    prediction: Path
    ground_truth: Path
    align: AlignName = "auto"
    cameras: Path | None = None
    true_cameras: Path | None = None
    transform: Path | None = None
    unit: str | None = None
    scan: int | None = None
    scene: str | None = None
    tau: float | None = None
    crop: Path | None = None
    refine: bool = True
    samples: int = SAMPLES
    threshold: float = 0.01
    masks: Path | None = None
    seed: int = 0


@dataclass
class Answer:
    """The result of a protocol.

    Attributes:
        metrics: in reading order.
        alignment: how the prediction was laid onto the truth.
        notes: what one must know to read the numbers right.
    """

    metrics: list[Metric]
    alignment: Alignment = NOT_ALIGNED
    notes: list[str] = field(default_factory=list)

    def as_json(self, question: Question) -> dict[str, Any]:
        """Plain data for a file; `porf compare` reads it."""
        asked = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in vars(question).items()
        }
        return {
            "protocol": question.protocol,
            "metrics": [metric.as_json() for metric in self.metrics],
            "alignment": self.alignment.as_json(),
            "notes": self.notes,
            "question": asked,
        }


def evaluate(question: Question) -> Answer:
    """Measure.

    Raises:
        InputError: whatever is wrong with the files, their units or their frames, or an option
            that the protocol has no use for.
    """
    _check_options(question)
    return _PROTOCOLS[question.protocol](question)


_ALIGNING = frozenset({"align", "cameras", "true_cameras", "transform"})
_OPTIONS: dict[str, frozenset[str]] = {
    "dtu": _ALIGNING | {"scan", "seed"},
    "mobilebrick": _ALIGNING | {"samples", "seed"},
    "tanks_and_temples": _ALIGNING | {"unit", "scene", "tau", "crop", "refine"},
    "mesh": _ALIGNING | {"unit", "threshold"},
    "poses": frozenset({"align", "unit"}),
    "images": frozenset({"masks"}),
}
"""What each protocol asks for, beside its prediction and its ground truth."""


def _check_options(question: Question) -> None:
    """Refuse what would change nothing: who gives masks expects a number within them."""
    known = _OPTIONS[question.protocol]
    for option in fields(question)[3:]:
        if option.name not in known and getattr(question, option.name) != option.default:
            spelled = "--no-refine" if option.name == "refine" else _spelled(option.name)
            users = [name for name, options in _OPTIONS.items() if option.name in options]
            takes = ", ".join(_spelled(name) for name in sorted(known))
            raise InputError(
                f"the protocol {question.protocol} has no use for {spelled}",
                hint=f"it takes {takes}; {spelled} belongs to {', '.join(users)}",
            )


def _spelled(option: str) -> str:
    return "--" + option.replace("_", "-")


def _dtu(question: Question) -> Answer:
    if question.scan is None:
        raise InputError(
            "the DTU protocol needs the number of the scan", hint="add --scan, e.g. --scan 65"
        )
    reference = load_dtu_reference(question.ground_truth, question.scan)
    prediction, alignment = _aligned(question, reference.points, needs_faces=False)
    errors = evaluate_dtu(prediction, reference, question.seed)
    culled = "mesh as given (published tables cull it by dilated masks first)"
    return Answer(dtu_metrics(errors, question.scan, culled), alignment)


def _mobilebrick(question: Question) -> Answer:
    reference = load_brick_reference(question.ground_truth)
    prediction, alignment = _aligned(question, reference.mesh.points, needs_faces=True)
    errors = evaluate_mobilebrick(prediction, reference, question.samples, question.seed)
    answer = Answer(mobilebrick_metrics(errors, question.samples), alignment)
    if errors.applied:
        similarity = errors.registration.similarity.inverse()
        answer.alignment = Alignment(
            "icp", similarity, errors.registration.inlier_rmse, None, len(reference.mesh.points)
        )
        if alignment.method != "none":
            answer.notes.append("ICP came on top of the alignment by cameras; its matrix is stored")
    return answer


def _tanks(question: Question) -> Answer:
    if question.align == "icp":
        raise InputError(
            "Tanks and Temples has ICP steps of its own: --align icp would change nothing",
            hint="leave --align out; --no-refine leaves the ICP steps out",
        )
    tau = question.tau if question.tau is not None else TAU_M.get(question.scene or "")
    if tau is None or tau <= 0:
        raise InputError(
            "Tanks and Temples needs a threshold τ > 0",
            hint="add --tau, or --scene with one of " + ", ".join(TAU_M),
        )
    target = load_points(question.ground_truth)
    volume = load_crop_volume(question.crop) if question.crop else None
    prediction = load_prediction(question.prediction, needs_faces=False)
    start = _start(question)
    cropped = volume.crop(target) if volume else target
    if volume is None:
        check_frames_fit(
            start.similarity.apply_points(prediction.points), cropped, str(question.prediction)
        )
    errors = evaluate_tanks(
        prediction.points, target, tau, volume, start.similarity, question.refine
    )
    found = errors.registration
    alignment = (
        Alignment("icp", found.similarity, found.inlier_rmse, None, errors.counts["source_cropped"])
        if found
        else start
    )
    return Answer(tanks_metrics(errors, question.unit or "m"), alignment)


def _mesh(question: Question) -> Answer:
    true = load_prediction(question.ground_truth, needs_faces=True)
    spacing = REFERENCE_SPACING * extent(true.points)[1]
    reference = sample_surface(true.points, true.mesh.faces, spacing)
    prediction, alignment = _aligned(question, reference, needs_faces=True)
    viewers, notes = None, []
    if question.true_cameras is not None:
        viewers = _viewers(load_trajectory(question.true_cameras))
        if viewers is None:
            notes.append(
                "the true cameras tell no intrinsics: whole surfaces, seen or not, compared"
            )
    protocol = SurfaceProtocol(threshold=question.threshold)
    errors = compare_surfaces(prediction.mesh, true.mesh, NOT_ALIGNED.similarity, viewers, protocol)
    stated = f"alignment: {alignment.method}"
    unit = question.unit or "units of the truth"
    return Answer(surface_metrics(errors, unit, protocol, stated), alignment, notes)


def _poses(question: Question) -> Answer:
    estimate = load_trajectory(question.prediction)
    truth = load_trajectory(question.ground_truth)
    here, there = pair_cameras(estimate, truth)
    unit = question.unit or truth.unit or "units of the truth"
    if question.align in ("none", "icp"):
        raise InputError(
            f"poses cannot be compared with --align {question.align}",
            hint="centres (the usual one) or poses (by the cameras' rotations)",
        )
    method: Literal["centres", "poses"] = "poses" if question.align == "poses" else "centres"
    alignment = align_cameras(estimate.c2w[here], truth.c2w[there], method)
    errors = compare_poses(estimate.c2w[here], truth.c2w[there], method=method)
    stated = BY_ROTATIONS if method == "poses" else UMEYAMA
    answer = Answer(pose_metrics(errors, GIVEN, unit, stated), alignment)
    if len(here) < max(len(estimate), len(truth)):
        answer.notes.append(
            f"{len(here)} photos are in both; {len(estimate)} cameras were given, {len(truth)} are "
            "true"
        )
    return answer


def _images(question: Question) -> Answer:
    compared = compare_folders(question.prediction, question.ground_truth, question.masks)
    metrics = image_pair_metrics(
        compared.psnr_db, compared.ssim, compared.lpips, question.masks is not None
    )
    return Answer(metrics, NOT_ALIGNED, compared.notes)


_PROTOCOLS: dict[str, Callable[[Question], Answer]] = {
    "dtu": _dtu,
    "mobilebrick": _mobilebrick,
    "tanks_and_temples": _tanks,
    "mesh": _mesh,
    "poses": _poses,
    "images": _images,
}


def _start(question: Question) -> Alignment:
    """The alignment before any ICP, from what the user gave.

    Raises:
        InputError: options that contradict each other, or cameras that are missing.
    """
    if question.transform is not None:
        if question.cameras is not None or question.align in ("centres", "poses"):
            raise InputError("give a transform or cameras to align by, not both")
        return load_transform(question.transform)
    wanted = question.align
    if wanted in ("auto", "icp"):
        wanted = "centres" if question.cameras is not None else "none"
    if wanted == "none":
        return NOT_ALIGNED
    if question.cameras is None or question.true_cameras is None:
        raise InputError(
            f"alignment by {wanted} needs the cameras of the reconstruction and the true ones",
            hint="add --cameras (estimated) and --true-cameras, both of the same photos",
        )
    estimate, truth = load_trajectory(question.cameras), load_trajectory(question.true_cameras)
    here, there = pair_cameras(estimate, truth)
    method: Literal["centres", "poses"] = "poses" if wanted == "poses" else "centres"
    return align_cameras(estimate.c2w[here], truth.c2w[there], method)


def _aligned(
    question: Question, reference: np.ndarray, needs_faces: bool
) -> tuple[Prediction, Alignment]:
    """The prediction in the truth's frame; refused where units or frames do not fit.

    Args:
        reference: (R, 3) points of the truth.
    """
    prediction = load_prediction(question.prediction, needs_faces)
    alignment = _start(question)
    name = str(question.prediction)
    check_frames_fit(alignment.similarity.apply_points(prediction.points), reference, name)
    if question.align == "icp":
        radius = extent(reference)[1]
        points = prediction.points
        if prediction.faces is not None:
            spacing = REFERENCE_SPACING * radius / alignment.similarity.scale
            points = sample_surface(prediction.points, prediction.faces, spacing)
        alignment = align_surfaces(
            points, reference, radius, alignment.similarity, with_scale=question.cameras is not None
        )
    return prediction.moved(alignment.similarity), alignment


def _viewers(truth: Trajectory) -> Viewers | None:
    """True cameras as viewers, their photos symmetrical about the principal point.

    None where the file tells no intrinsics.
    """
    if truth.cameras is None:
        return None
    sizes_px = frames_of(truth.cameras, np.zeros((len(truth), 2), dtype=np.int64))
    return Viewers(truth.cameras.K, truth.c2w, sizes_px)
