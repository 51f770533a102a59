"""What a training leaves behind, file by file."""

import json
import math
from dataclasses import dataclass
from dataclasses import field as default
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.formats.case import Case
from pipeline.formats.idr import IdrCameras, save_idr_cameras
from pipeline.formats.poses import save_pose_text
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.porf.checkpoint import FORMAT, save_atomically
from pipeline.porf.config import TrainConfig
from pipeline.porf.gate import Candidate
from pipeline.porf.rays import FieldModel
from pipeline.verdict import Verdict

CAMERAS_FILE = "cameras_refine_porf.npz"
POSES_FILE = "refined_pose.txt"
MODEL_FILE = "model.pt"
HISTORY_FILE = "history.json"
FIGURES_FILE = "train.json"

HISTORY_COLUMNS = [
    "step",
    "loss",
    "color",
    "eikonal",
    "epipolar",
    "psnr_db",
    "heldout_epipolar_px",
    "rotation_change_deg",
]


@dataclass
class TrainResult:
    """Outcome of a training.

    Attributes:
        cameras: exported cameras, world frame.
        accepted: name of the candidate that they are.
        candidates: all cameras that were judged.
        history: rows of `HISTORY_COLUMNS`.
        figures: what characterises the result, units in the names.
        verdict: for the stage.
    """

    cameras: IdrCameras
    accepted: str
    candidates: list[Candidate]
    history: list[list[float]]
    figures: dict[str, Any] = default(default_factory=dict)
    verdict: Verdict = default(default_factory=Verdict)


def write_artifacts(
    out: Path,
    config: TrainConfig,
    field: FieldModel | None,
    result: TrainResult,
    c2w: Tensor,
    case: Case,
) -> None:
    """Write cameras, poses, model, history and figures of a training into `out`.

    Args:
        field: None where no surface was trained; then there is no model.
        c2w: (V, 4, 4) cameras that the surface was trained with, normalised frame.
    """
    out.mkdir(parents=True, exist_ok=True)
    save_idr_cameras(out / CAMERAS_FILE, result.cameras)
    save_pose_text(out / POSES_FILE, result.cameras.c2w)
    if field is not None:
        save_atomically(
            out / MODEL_FILE,
            {
                "format": FORMAT,
                "options": config.model_dump(mode="json"),
                "field": {k: v.cpu() for k, v in cast(nn.Module, field).state_dict().items()},
                "c2w": c2w.double().cpu(),
                "K": torch.from_numpy(result.cameras.K),
                "scale_mat": torch.from_numpy(case.cameras.scale_mat),
                "size_px": [case.width, case.height],
            },
        )
    rows = [[v if math.isfinite(v) else None for v in row] for row in result.history]
    history = {"columns": HISTORY_COLUMNS, "rows": rows}
    (out / HISTORY_FILE).write_text(json.dumps(history, indent=1))
    (out / FIGURES_FILE).write_text(json.dumps(_summary(result, case), indent=1))


def _summary(result: TrainResult, case: Case) -> dict[str, Any]:
    before, after = case.cameras.c2w, result.cameras.c2w
    rotation_deg = rotation_angles_deg(before[:, :3, :3], after[:, :3, :3])
    moved = np.linalg.norm(after[:, :3, 3] - before[:, :3, 3], axis=1)
    return {
        "figures": result.figures,
        "candidates": [
            {
                "name": c.name,
                "heldout_error_px": c.error_px if math.isfinite(c.error_px) else None,
                "heldout_median_px": c.median_px if math.isfinite(c.median_px) else None,
            }
            for c in result.candidates
        ],
        "views": [
            {"index": i, "rotation_change_deg": float(r), "centre_change": float(m)}
            for i, (r, m) in enumerate(zip(rotation_deg, moved, strict=True))
        ],
        "warnings": result.verdict.reasons,
    }
