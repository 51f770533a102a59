"""`porf roi`: the region of interest as a picture."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.cli import console
from flows.cli.arguments import OutArgument, absolute
from flows.cli.export import artifacts
from pipeline.errors import InputError
from pipeline.store.files import disk_error


def roi(
    out: OutArgument,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", "-p", help="PNG to write.", show_default="OUT/roi.png"),
    ] = None,
) -> None:
    """Show the region of interest: a picture, its numbers, and how much lies inside."""
    from pipeline.sfm.roi_picture import draw_roi, load_roi_scene  # noqa: PLC0415

    folder = absolute(out)
    case = scene_folder(folder)
    facts = json.loads((case / "scene.json").read_text(encoding="utf-8"))
    scene = load_roi_scene(case, facts)
    target = absolute(picture) if picture else folder / "roi.png"
    try:
        draw_roi(target, scene)
    except OSError as error:
        raise disk_error(error, target) from error
    for line in roi_lines(facts):
        console.print(escape(line))
    console.print(f"[green]✓[/] {escape(str(target))}")


def scene_folder(folder: Path) -> Path:
    """The scene of a run's output folder, or the folder itself if it is a scene.

    Raises:
        InputError: neither.
    """
    if (folder / "scene.json").is_file():
        return folder
    found = artifacts(folder)
    if "scene" not in found:
        raise InputError(
            f"{folder} has no scene yet", hint="run `porf run PHOTOS -o OUT --to scene`"
        )
    return found["scene"]


def roi_lines(facts: dict) -> list[str]:
    """The region in words and numbers, from `scene.json`."""
    x, y, z = facts["center"]
    radius = facts["radius"]
    unit = "" if facts.get("unit", "unknown") == "unknown" else f" {facts['unit']}"
    shares = facts.get("view_inside_fraction") or [0.0]
    return [
        f"centre {x:.5g}, {y:.5g}, {z:.5g}; radius {radius:.5g}{unit};"
        f" found from: {facts.get('region_source', 'given')}",
        f"inside: {facts.get('points_inside_fraction', 0.0):.0%} of the sparse points;"
        f" it covers {min(shares):.0%} to {max(shares):.0%} of a view;"
        f" cameras stand {facts.get('camera_distance_radii', 0.0):.2f} radii away",
        f"to change it: porf run PHOTOS -o OUT --roi={x:.6g},{y:.6g},{z:.6g},{radius:.6g}",
    ]
