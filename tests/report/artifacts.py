"""Artifact folders of a small run on the analytic scene: real files by the real writers."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from pipeline.formats.idr import IdrCameras, make_scale_mat, save_idr_cameras, to_world
from pipeline.formats.matches import ViewMatches, save_matches
from pipeline.formats.views import ViewRecord, save_views
from pipeline.metrics.error_map import FILE, save_errors
from pipeline.metrics.surface import SurfaceProtocol
from pipeline.progress import NullProgress
from pipeline.surface.build import build_surface
from pipeline.surface.config import MeshConfig
from pipeline.surface.save import save_surface
from pipeline.surface.views import open_views
from tests.surface.analytic_scene import (
    HEIGHT,
    WIDTH,
    K,
    balls,
    paint,
    photograph,
    ring,
    write_scene,
)

VIEWS = 12
SCALE_MAT = make_scale_mat(np.array([4.0, -1.0, 2.0]), 2.5)
ADVICE = "torn.jpg cannot be decoded; see `ingest.json` <b>"
NASTY_NAME = 'IMG <b>&"07"</b> $x_1$ </script>.jpg'


def photo_names() -> list[str]:
    """Names of the registered photos; one of them is hostile."""
    names = [f"IMG_{index:04d}.jpg" for index in range(VIEWS)]
    names[7] = NASTY_NAME
    return sorted(names)


def cameras(shaken: bool) -> IdrCameras:
    """True cameras in the world frame, or the same shaken by about a tenth of a degree."""
    c2w = to_world(ring(VIEWS), SCALE_MAT)
    if shaken:
        rng = np.random.default_rng(3)
        wobble = Rotation.from_rotvec(np.radians(0.1) * rng.normal(size=(VIEWS, 3))).as_matrix()
        c2w[:, :3, :3] = c2w[:, :3, :3] @ wobble
        c2w[:, :3, 3] += 0.004 * rng.normal(size=(VIEWS, 3))
    return IdrCameras(np.repeat(K[None], VIEWS, axis=0), c2w, SCALE_MAT)


def write_artifacts(root: Path) -> dict[str, Path]:
    """Folders of all stages by name."""
    stages = ("ingest", "sfm", "scene", "matches", "train", "mesh", "evaluate")
    folders = {name: root / name for name in stages}
    for folder in folders.values():
        folder.mkdir(parents=True)
    _scene(folders["scene"])
    _ingest(folders["ingest"])
    _write(
        folders["sfm"] / "sfm.json",
        {
            "points": 400,
            "track_length_mean": 5.2,
            "reprojection_px": {"mean": 0.51, "median": 0.41},
            "pairs": {"tried": 66, "verified": 24},
            "cameras": {"1": {"model": "SIMPLE_RADIAL"}},
            "calibration": {"rationale": "SIMPLE_RADIAL, principal point refined"},
            "network": {"median_step_deg": 30.0, "weak_links": [], "gaps": []},
            "rotation_uncertainty": {
                "median_deg": 0.021,
                "common_deg": 0.015,
                "scatter_median_deg": 0.012,
                "views_deg": {"IMG_0000.jpg": 0.019, "IMG_0003.jpg": 0.047},
            },
        },
    )
    _matches(folders["matches"])
    _train(folders["train"])
    _mesh(folders["mesh"], folders["scene"])
    _evaluate(folders["evaluate"])
    return folders


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def _ingest(folder: Path) -> None:
    (folder / "images").mkdir()
    photos = []
    for index, name in enumerate(photo_names()):
        file = f"images/{index:03d}.jpg"
        Image.fromarray(photograph(ring(VIEWS)[index])[0]).save(folder / file)
        photos.append({"name": name, "file": file, "used": True, "reason": None})
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 60)).save(folder / "images/elsewhere.jpg")
    photos.append({"name": "elsewhere.jpg", "file": "images/elsewhere.jpg", "used": True})
    photos.append({"name": "torn.jpg", "file": None, "used": False, "reason": "cannot be decoded"})
    _write(folder / "ingest.json", {"photos": photos, "warnings": ["torn.jpg cannot be decoded"]})


def _scene(folder: Path) -> None:
    write_scene(folder, ring(VIEWS))
    save_idr_cameras(folder / "cameras_colmap.npz", cameras(shaken=True))
    records = [
        ViewRecord(index=i, name=name, registered=True) for i, name in enumerate(photo_names())
    ]
    records.append(
        ViewRecord(index=None, name="elsewhere.jpg", registered=False, reason="too few matches")
    )
    records.append(
        ViewRecord(index=None, name="torn.jpg", registered=False, reason="cannot be decoded")
    )
    save_views(folder / "views.json", records)
    _write(folder / "scene.json", {"unit": "unknown", "up": [0.0, 0.0, 1.0], "radius": 2.5})
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(400, 3))
    points = 0.4 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
    np.savez(
        folder / "sparse.npz",
        points=points * 2.5 + SCALE_MAT[:3, 3],
        colors=paint(points).astype(np.uint8),
        errors_px=np.full(400, 0.5),
        track_lengths=np.full(400, 3),
    )


def _matches(folder: Path) -> None:
    rng = np.random.default_rng(1)
    views = []
    for index in range(VIEWS):
        sources = [(index + step) % VIEWS for step in (1, 2, VIEWS - 1, VIEWS - 2)]
        counts = rng.integers(20, 200, size=4)
        matches = [rng.uniform(0, HEIGHT, size=(n, 4)).astype(np.float32) for n in counts]
        views.append(ViewMatches(sources, matches, [np.zeros(n, dtype=bool) for n in counts]))
    save_matches(folder / "colmap_matches", views)


def _train(folder: Path) -> None:
    save_idr_cameras(folder / "cameras_refine_porf.npz", cameras(shaken=False))
    steps = np.arange(50, 2050, 50)
    rows = [
        [float(s), 2.0 * np.exp(-s / 400) + 0.01, 14 + 12 * (1 - np.exp(-s / 600)), 0.6]
        for s in steps
    ]
    columns = ["step", "loss", "psnr_db", "heldout_epipolar_px"]
    _write(folder / "history.json", {"columns": columns, "rows": rows})
    figures = {
        "accepted_cameras": "joint",
        "heldout_epipolar_before_px": 0.713,
        "heldout_epipolar_after_px": 0.412,
        "psnr_heldout_db": 27.31,
    }
    candidates = [
        {"name": "input", "heldout_error_px": 0.713, "heldout_median_px": 0.5},
        {"name": "epipolar", "heldout_error_px": 0.466, "heldout_median_px": 0.4},
        {"name": "joint", "heldout_error_px": 0.412, "heldout_median_px": 0.3},
    ]
    _write(folder / "train.json", {"figures": figures, "candidates": candidates})


def _mesh(folder: Path, scene: Path) -> None:
    views = open_views(scene, np.repeat(K[None], VIEWS, axis=0), ring(VIEWS))
    surface = build_surface(
        balls,
        views,
        SCALE_MAT,
        np.zeros((0, 3)),
        MeshConfig(resolution=64, texture=True, texture_size=512),
        "cpu",
        NullProgress(),
    )
    up = np.array([0.0, 0.0, 1.0])
    save_surface(folder, surface, up)
    low, high = surface.mesh.bounds.tolist()
    facts = {
        "bounds": {"low": low, "high": high},
        "area": float(surface.mesh.area),
        "glb_up": {"direction": up.tolist(), "from": "scene"},
        **surface.figures,
    }
    _write(folder / "mesh.json", facts)


def _evaluate(folder: Path) -> None:
    metrics = [
        {
            "name": "rotation_mean_refined",
            "value": 0.0731,
            "unit": "deg",
            "meaning": "mean rotation error of the cameras after refinement",
            "protocol": "cameras aligned by a similarity on camera centres",
        },
        {
            "name": "rotation_mean_sfm",
            "value": 0.1317,
            "unit": "deg",
            "meaning": "mean rotation error of the cameras from structure from motion",
            "protocol": "cameras aligned by a similarity on camera centres",
        },
        {
            "name": "chamfer_of_radius",
            "value": 0.412,
            "unit": "% of object radius",
            "meaning": "mean distance between the surfaces, both ways",
            "protocol": "mesh",
        },
    ]
    per_view: list[dict[str, Any]] = [
        {"index": i, "rotation_sfm_deg": 0.1 + 0.01 * i, "rotation_refined_deg": 0.07}
        for i in range(VIEWS)
    ]
    for index in (0, 4, 8):
        per_view[index] |= {"psnr_db": 26.0 + index, "ssim": 0.9}
    _write(
        folder / "metrics.json",
        {
            "metrics": metrics,
            "alignment": None,
            "notes": ["aligned on centres"],
            "per_view": per_view,
        },
    )
    mesh = trimesh.load(folder.parent / "mesh/mesh.ply", process=False)
    distances = np.linspace(0, 0.25, len(mesh.vertices))
    save_errors(folder / FILE, distances, SurfaceProtocol())
    (folder / "renders").mkdir()
    for index in (0, 4, 8):
        photo = photograph(ring(VIEWS)[index])[0]
        for kind in ("photo", "render", "normal", "error"):
            Image.fromarray(photo).save(folder / "renders" / f"{index:03d}_{kind}.png")


def manifests() -> dict[str, dict[str, Any]]:
    """Manifests as the store writes them, as plain data."""
    names = ("ingest", "sfm", "scene", "matches", "train", "mesh", "evaluate")
    return {
        name: {
            "recipe": {
                "stage": name,
                "version": 1,
                "options": {"resolution": 64, "pose": {"model": "porf"}} if name == "train" else {},
                "seed": 0,
            },
            "verdict": {
                "status": "warn" if name == "ingest" else "ok",
                "reasons": ["torn.jpg cannot be decoded; see `ingest.json` <b>"]
                if name == "ingest"
                else [],
                "figures": {"photos": 14, "share": 0.857},
                "settings": {"steps_per_second": 7.25} if name == "train" else {},
            },
            "paths": {"photos": "/somewhere/my <photos>"} if name == "ingest" else {},
            "started_at": f"2026-01-0{order + 1}T10:00:00+00:00",
            "wall_s": 12.5 * (order + 1),
            "peak_memory_mb": 300.0 * (order + 1),
            "libraries": {"numpy": "2.4.6"},
        }
        for order, name in enumerate(names)
    }
