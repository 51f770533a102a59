"""The end of a run, for a person: the figures and where everything is."""

import json
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from flows.case_folder import CaseFolder
from flows.cli import console

_EXPLAINED = {
    "mesh.ply": "coloured surface mesh, world frame",
    "mesh.glb": "the same for viewers",
    "cameras_refine_porf.npz": "refined cameras (IDR)",
    "refined_pose.txt": "refined camera-to-world matrices",
    "cameras_colmap.npz": "cameras before refinement (IDR)",
    "image": "undistorted views",
    "colmap_matches": "two-view matches",
    "views.json": "what became of every photo",
    "metrics.json": "all figures with their units",
    "report.html": "the report: open it in a browser",
}


def print_results(folder: CaseFolder) -> None:
    """Metrics with units, then the files at the top of the output folder."""
    metrics = load_metrics(folder.root / "metrics.json")
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


def load_metrics(path: Path) -> list[dict[str, Any]]:
    """The list of metrics of a `metrics.json`, empty where there is none."""
    try:
        return list(json.loads(path.read_bytes())["metrics"])
    except (OSError, ValueError, KeyError):
        return []


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
