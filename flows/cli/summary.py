"""The end of a run, for a person: the figures and where everything is."""

import json
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from flows.case_folder import CaseFolder
from flows.cli import console
from pipeline.formats.views import load_views

_EXPLAINED = {
    "mesh.ply": "coloured surface mesh, world frame",
    "mesh.glb": "the same for viewers",
    "mesh_textured.glb": "with a texture from the photos, for viewers",
    "mesh.obj": "for modelling programs, with its material file",
    "cameras_refine_porf.npz": "refined cameras (IDR)",
    "refined_pose.txt": "refined camera-to-world matrices",
    "cameras_colmap.npz": "cameras before refinement (IDR)",
    "image": "undistorted views",
    "colmap_matches": "two-view matches",
    "views.json": "what became of every photo",
    "metrics.json": "all figures with their units",
    "report.html": "the report: open it in a browser",
}


_HEADLINES = {
    "rotation_mean_sfm": "rotation error, SfM cameras (mean)",
    "rotation_mean_refined": "rotation error, refined cameras (mean)",
    "translation_of_span_refined": "position error, refined cameras (mean)",
    "chamfer_of_radius": "Chamfer distance",
    "f_score": "F-score",
    "heldout_epipolar_median_sfm": "held-out epipolar error, SfM cameras (median)",
    "heldout_epipolar_median_refined": "held-out epipolar error, refined cameras (median)",
    "psnr_heldout": "PSNR on held-out pixels",
}


def print_results(folder: CaseFolder) -> None:
    """The headline figures with units, then the files at the top of the output folder."""
    found = {m["name"]: m for m in load_metrics(folder.root / "metrics.json")}
    metrics = [
        {**found[name], "name": label} for name, label in _HEADLINES.items() if name in found
    ]
    _print_views(folder.root / "views.json")
    if metrics:
        table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
        table.add_column("figure")
        table.add_column("value", justify="right")
        table.add_column("unit")
        for metric in metrics:
            table.add_row(
                escape(metric["name"]), _number(metric["value"]), escape(str(metric["unit"]))
            )
        console.print(table)
    console.print(f"results in [bold]{escape(str(folder.root))}[/]")
    for name, meaning in _EXPLAINED.items():
        if (folder.root / name).exists():
            console.print(f"  {name:24} [dim]{meaning}[/]")


def _print_views(path: Path) -> None:
    if path.is_file():
        views = load_views(path)
        registered = sum(view.registered for view in views)
        console.print(f"{registered} of {len(views)} photos registered")


def load_metrics(path: Path) -> list[dict[str, Any]]:
    """The list of metrics of a `metrics.json`, empty where there is none."""
    try:
        return list(json.loads(path.read_bytes())["metrics"])
    except (OSError, ValueError, KeyError):
        return []


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
