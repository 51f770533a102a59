"""What a finished training is worth, in figures and in words."""

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pipeline.formats.case import Case
from pipeline.formats.idr import IdrCameras
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.porf.artifacts import HISTORY_COLUMNS, TrainResult
from pipeline.porf.config import TrainConfig
from pipeline.porf.gate import Candidate, Gate
from pipeline.porf.lens import Lens
from pipeline.porf.observations import Observations
from pipeline.verdict import Verdict

_DISTORTION_TOLD_PX = 0.5


def exported_cameras(given: IdrCameras, c2w: Tensor, K: Tensor) -> IdrCameras:
    """The given cameras with trained poses c2w (V, 4, 4), normalised frame, and K (V, 3, 3)."""
    exact = nearest_rotations(c2w.double().cpu())
    return replace(given.with_normalised_poses(exact.numpy()), K=K.numpy())


def nearest_rotations(c2w: Tensor) -> Tensor:
    """Poses (V, 4, 4) with their rotation parts made orthonormal to the tensor's precision.

    Single precision leaves 1e-7, which would reach the intrinsics when P is decomposed.
    """
    U, _, Vt = torch.linalg.svd(c2w[:, :3, :3])
    exact = c2w.clone()
    exact[:, :3, :3] = U @ Vt
    return exact


def progress_figures(history: list[list[float]]) -> dict[str, float]:
    """What the newest row of the history shows beside the progress bar."""
    if not history:
        return {}
    row = dict(zip(HISTORY_COLUMNS, history[-1], strict=True))
    shown = {
        "loss": row["loss"],
        "color": row["color"],
        "epipolar": row["epipolar"],
        "psnr": row["psnr_db"],
        "heldout_px": row["heldout_epipolar_px"],
        "moved_deg": row["rotation_change_deg"],
    }
    return {name: value for name, value in shown.items() if math.isfinite(value)}


def mean_turn_deg(before: Tensor, after: Tensor) -> float:
    """Mean angle between the rotations of two sets of poses (V, 4, 4), degrees."""
    rotations = (c2w[:, :3, :3].double().cpu().numpy() for c2w in (before, after))
    return float(rotation_angles_deg(*rotations).mean())


def camera_figures(given: IdrCameras, cameras: IdrCameras) -> dict[str, Any]:
    """How far the cameras were moved."""
    rotation_deg = rotation_angles_deg(given.c2w[:, :3, :3], cameras.c2w[:, :3, :3])
    return {
        "rotation_change_mean_deg": float(rotation_deg.mean()),
        "focal_change_percent": 100 * float((cameras.K[:, 0, 0] / given.K[:, 0, 0]).mean() - 1),
        "principal_point_change_px": (cameras.K - given.K)[:, :2, 2].mean(axis=0).tolist(),
    }


def lens_figures(lens: Lens, cameras: IdrCameras, case: Case) -> dict[str, Any]:
    """Distortion that the photos still have, where the calibration found some."""
    if not lens.distorts:
        return {}
    moved_px = max(lens.displacement_px(K, case.width, case.height) for K in cameras.K)
    return {"distortion_left": list(lens.distortion), "distortion_left_px": moved_px}


def training_figures(
    config: TrainConfig,
    gate: Gate,
    candidates: list[Candidate],
    accepted: str,
    history: list[list[float]],
    observations: Observations,
) -> dict[str, Any]:
    """How training went, and what the held-out matches say before and after."""
    by_name = {c.name: c for c in candidates}
    before, after = by_name["input"], by_name[accepted]
    second = {"second_stage_steps": config.surface.steps}
    return {
        "heldout_share": config.epipolar.heldout_share,
        "heldout_matches": gate.table.num_matches,
        "heldout_epipolar_before_px": _finite(before.error_px),
        "heldout_epipolar_after_px": _finite(after.error_px),
        "accepted_cameras": accepted,
        "psnr_train_db": history[-1][HISTORY_COLUMNS.index("psnr_db")] if history else None,
        "steps": config.steps,
        **(second if config.surface.mode == "second_stage" else {}),
        "training_width_px": int(observations.images.shape[2]),
        "training_height_px": int(observations.images.shape[1]),
    }


def decision(gate: Gate, candidates: list[Candidate], accepted: str) -> str | None:
    """Which cameras were taken and what held-out matches say; None where they cannot decide."""
    if not gate.can_decide or len(candidates) == 1:
        return None
    by_name = {c.name: c for c in candidates}
    given_px, taken_px = by_name["input"].error_px, by_name[accepted].error_px
    if accepted == "input":
        return (
            "no refined cameras agree clearly better with held-out matches than the given ones "
            f"({given_px:.3f} px): these are kept"
        )
    return (
        f"{accepted} cameras are taken: held-out matches agree to {taken_px:.3f} px with them, to "
        f"{given_px:.3f} px with the given ones"
    )


def contradicted(names: Iterable[str]) -> list[str]:
    """What to say of views whose matches with most others do not fit their cameras."""
    listed = list(names)
    if not listed:
        return []
    shown = ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if listed[5:] else "")
    return [
        f"the cameras of {shown} contradict their matches with the other photos: they may be "
        "wrong; compare their renders with the photos, or leave these photos out"
    ]


def judgement(config: TrainConfig, gate: Gate, result: TrainResult, warnings: list[str]) -> Verdict:
    """The verdict on a result whose figures are known.

    Args:
        warnings: what training itself had to say.
    """
    warnings = list(warnings)
    # Without held-out matches on purpose, the trained cameras are taken unjudged.
    chosen = config.epipolar.heldout_share == 0 and result.accepted != "input"
    if config.pose.model != "fixed" and not gate.can_decide and not chosen:
        warnings.append(
            f"only {gate.table.num_matches} held-out matches: refined cameras cannot be judged"
            + (", the given ones are kept" if result.accepted == "input" else "")
        )
    left_px = result.figures.get("distortion_left_px", 0.0)
    if left_px > _DISTORTION_TOLD_PX:
        k1, k2 = result.figures["distortion_left"]
        warnings.append(
            f"the photos still have radial distortion of up to {left_px:.1f} px (k1 {k1:.4g}, "
            f"k2 {k2:.4g}): it was undone for training; `porf export-cameras` writes it for COLMAP "
            "and nerfstudio, the files in the IDR convention cannot hold it"
        )
    before, after = (result.figures[f"heldout_epipolar_{when}_px"] for when in ("before", "after"))
    if before is not None and after is not None and after > before:
        warnings.append(
            f"the trained cameras agree less with held-out matches ({after:.3f} px) than the "
            f"given ones ({before:.3f} px)"
        )
    return Verdict.from_warnings(warnings, **result.figures)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
