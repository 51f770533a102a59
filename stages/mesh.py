"""Stage `mesh`: the trained field as a cleaned, coloured mesh."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.formats.sparse import load_sparse
from pipeline.porf.trained import TrainedModel, load_trained
from pipeline.store.files import write_json
from pipeline.surface.build import build_surface
from pipeline.surface.config import MeshConfig
from pipeline.surface.save import mean_camera_up, save_surface
from pipeline.surface.views import open_views
from pipeline.verdict import Verdict
from stages.base import StageContext


def run(ctx: StageContext) -> Verdict:
    """Write `mesh.ply`, `mesh.glb` and `mesh.json`; a textured GLB and an OBJ where asked for."""
    config: MeshConfig = ctx.config
    device = _device(config.device)
    scene_dir = ctx.inputs["scene"]
    model = load_trained(ctx.inputs["train"], device=device)
    c2w = np.asarray(model.c2w)
    scale_mat = np.asarray(model.scale_mat)
    views = open_views(scene_dir, np.asarray(model.K), c2w)
    scene = _scene_facts(scene_dir)
    up, up_from = _up(scene, c2w)
    surface = build_surface(
        partial(_distances, model, config.threshold),
        views,
        scale_mat,
        (load_sparse(scene_dir).points - scale_mat[:3, 3]) / scale_mat[0, 0],
        config,
        device,
        ctx.progress,
        up,
        model.backdrop if model.config.field == "grid" else None,
    )
    unit = scene.get("unit", "unknown")
    save_surface(ctx.out, surface, up, config.obj, unit)
    verdict = Verdict.from_warnings(surface.warnings, **_short(surface.figures))
    verdict.settings["device"] = device
    low, high = surface.mesh.bounds.tolist()
    write_json(
        ctx.out / "mesh.json",
        {
            "frame": "world",
            "unit": unit,
            "bounds": {"low": low, "high": high},
            "area": float(surface.mesh.area),
            "glb_up": {"direction": up.tolist(), "from": up_from},
            **surface.figures,
            "verdict": verdict.brief(),
        },
    )
    return verdict


def _distances(model: TrainedModel, threshold: float, x: torch.Tensor) -> torch.Tensor:
    return model.sdf(x) - threshold


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def _scene_facts(scene_dir: Path) -> dict[str, Any]:
    path = scene_dir / "scene.json"
    if not path.exists():  # a case from elsewhere
        return {}
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def _up(scene: dict[str, Any], c2w: NDArray) -> tuple[NDArray, str]:
    if scene.get("up") is not None:
        return np.asarray(scene["up"], dtype=np.float64), "scene"
    return mean_camera_up(c2w), "cameras"


def _short(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: figures[name] for name in ("vertices", "faces", "pieces", "watertight")}
