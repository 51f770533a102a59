"""Draws everything and writes the page and its pictures."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import InputError
from pipeline.metrics.error_map import FULL_SCALE, error_colours
from pipeline.progress import NullProgress, Progress
from pipeline.report.charts import (
    ORANGE,
    Chart,
    bars_per_view,
    before_after,
    error_scale,
    match_graph,
    match_matrix,
    paired_bars,
    seen_from_above,
    training_charts,
)
from pipeline.report.data import RENDER_KINDS, Photo, ReportData
from pipeline.report.page import PageParts, render_page
from pipeline.report.pictures import (
    PictureFolder,
    Tile,
    contact_sheet,
    thumbnail,
    trimmed,
    webp_uri,
)
from pipeline.report.scene3d import pack_scene
from pipeline.report.shade import Shot, Studio
from pipeline.report.words import number

MAX_BYTES = 15_000_000
SIDES = 8
ERROR_SIDES = 4
MAX_VIEWS = 6
UNCHANGED_DEG = 1e-6
_OUT_FRAME = (190, 120, 20)
_CANDIDATE_NAMES = {
    "input": "given cameras",
    "adjusted": "adjusted to matches",
    "calibrated": "and calibrated",
    "epipolar": "after matches",
    "joint": "after joint training",
}
_VIEW_FACTS = {
    "psnr_db": ("PSNR", " dB"),
    "ssim": ("SSIM", ""),
    "rotation_refined_deg": ("rotation error", "°"),
    "silhouette_iou": ("silhouette IoU", ""),
}


def build_report(data: ReportData, out: Path, progress: Progress | None = None) -> Path:
    """Write `report.html` and `pictures/*.png` into `out`.

    Raises:
        InputError: the page would be larger than `MAX_BYTES`.
    """
    progress = progress or NullProgress()
    pictures = PictureFolder(out / "pictures")
    parts = PageParts()
    steps: list[Callable[[], None]] = [
        lambda: _draw_mesh(data, parts, pictures),
        lambda: _draw_photos(data, parts, pictures),
        lambda: _draw_views(data, parts, pictures),
        lambda: _draw_charts(data, parts, pictures),
    ]
    for done, step in enumerate(steps, start=1):
        step()
        progress.advance("drawing", done, len(steps))
    parts.scene3d = pack_scene(data)
    html = render_page(data, parts)
    size = len(html.encode())
    if size > MAX_BYTES:
        raise InputError(
            f"the report would be {size / 1e6:.0f} MB, more than {MAX_BYTES / 1e6:.0f} MB",
            hint="this many photos do not fit into one page: report on a part of the set",
        )
    out.mkdir(parents=True, exist_ok=True)
    path = out / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


def _draw_mesh(data: ReportData, parts: PageParts, pictures: PictureFolder) -> None:
    if data.mesh is None:
        return
    studio = Studio(data.mesh, data.up)
    front = _front_azimuth(data, studio)
    hero = studio.shoot(front, size=(720, 560))
    parts.hero = webp_uri(trimmed(hero.colour), quality=88)
    pictures.save("mesh", hero.colour)
    pictures.save("mesh_clay", hero.clay)
    rgb = _error_rgb(data)
    shots = [
        studio.shoot(
            front + 360 * side / SIDES,
            other_rgb=rgb if side % (SIDES // ERROR_SIDES) == 0 else None,
        )
        for side in range(SIDES)
    ]
    parts.sides = [
        {"colour": webp_uri(s.colour), "clay": webp_uri(s.clay), "label": f"{45 * i}°"}
        for i, s in enumerate(shots)
    ]
    pictures.save("mesh_sides", _sides_sheet(shots, clay=False))
    pictures.save("mesh_sides_clay", _sides_sheet(shots, clay=True))
    _draw_errors(data, parts, pictures, [s.recoloured for s in shots if s.recoloured])


def _error_rgb(data: ReportData) -> NDArray | None:
    """Colours (V, 3) of the mesh by its distance from the truth, where that is known."""
    error = data.mesh_error
    return None if error is None else error_colours(error.distance, error.threshold, error.cap)


def _draw_errors(
    data: ReportData, parts: PageParts, pictures: PictureFolder, sides: list[Image.Image]
) -> None:
    """The mesh coloured by its distance from the truth, from `ERROR_SIDES` sides."""
    if data.mesh_error is None:
        return
    parts.error_sides = [
        {"colour": webp_uri(side), "label": f"{90 * i}°"} for i, side in enumerate(sides)
    ]
    parts.error_scale = error_scale(100 * data.mesh_error.threshold, FULL_SCALE)
    pictures.save_bytes(parts.error_scale.name, parts.error_scale.png)
    tiles = [Tile(side, f"{90 * i}°") for i, side in enumerate(sides)]
    pictures.save("mesh_error", contact_sheet(tiles, columns=4, cell=(400, 320)))


def _front_azimuth(data: ReportData, studio: Studio) -> float:
    """From where the first photo was taken: most people begin at the front."""
    cameras = data.after or data.before
    if cameras is None or len(cameras) == 0:
        return 0.0
    return studio.azimuth_of(cameras.c2w[0, :3, 3] - studio.target)


def _sides_sheet(shots: list[Shot], clay: bool) -> Image.Image:
    tiles = [
        Tile(shot.clay if clay else shot.colour, f"{45 * side}°") for side, shot in enumerate(shots)
    ]
    return contact_sheet(tiles, columns=4, cell=(400, 320))


def _draw_photos(data: ReportData, parts: PageParts, pictures: PictureFolder) -> None:
    width = 240 if len(data.photos) <= 120 else 160 if len(data.photos) <= 400 else 96
    quality = 70 if len(data.photos) <= 400 else 50
    tiles = []
    for photo in data.photos:
        small = thumbnail(photo.path, width) if photo.path else None
        parts.photos.append(
            {
                "name": photo.name,
                "registered": photo.index is not None,
                "reason": _why_not(photo),
                "uri": webp_uri(small, quality) if small else None,
            }
        )
        caption = photo.name if photo.index is not None else f"{photo.name}: {_why_not(photo)}"
        tiles.append(Tile(small, caption, None if photo.index is not None else _OUT_FRAME))
    if tiles:
        cell, columns = ((200, 150), 8) if len(tiles) <= 120 else ((120, 90), 14)
        pictures.save("photos", contact_sheet(tiles, columns, cell))


def _why_not(photo: Photo) -> str:
    if photo.index is not None:
        return ""
    return photo.reason or "not registered"


def _draw_views(data: ReportData, parts: PageParts, pictures: PictureFolder) -> None:
    chosen = sorted(data.renders)
    if len(chosen) > MAX_VIEWS:
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, MAX_VIEWS).astype(int)]
    tiles = []
    for index in chosen:
        files = data.renders[index]
        drawn = []
        for kind in RENDER_KINDS:
            if kind not in files:
                continue
            picture = thumbnail(files[kind], 640)
            drawn.append({"kind": kind, "uri": webp_uri(picture, quality=82)})
            tiles.append(Tile(picture, f"{data.view_name(index)}: {kind}"))
        parts.views.append(
            {"name": data.view_name(index), "facts": _view_facts(data, index), "pictures": drawn}
        )
    if tiles:
        pictures.save("views", contact_sheet(tiles, columns=4, cell=(480, 360)))


def _view_facts(data: ReportData, index: int) -> str:
    """The measures of one view in a line."""
    rows = [row for row in data.metrics.get("per_view", []) if row.get("index") == index]
    if not rows:
        return ""
    return ", ".join(
        f"{label} {number(float(rows[0][key]))}{after}"
        for key, (label, after) in _VIEW_FACTS.items()
        if isinstance(rows[0].get(key), int | float)
    )


def _draw_charts(data: ReportData, parts: PageParts, pictures: PictureFolder) -> None:
    parts.camera_charts = _camera_charts(data)
    parts.training_charts = training_charts(data.history)
    for chart in parts.camera_charts + parts.training_charts:
        pictures.save_bytes(chart.name, chart.png)


def _true_error_chart(data: ReportData) -> list[Chart]:
    """Rotation errors of every view before and after, where the truth is known."""
    keys = ("rotation_sfm_deg", "rotation_refined_deg")
    rows = [row for row in data.metrics.get("per_view", []) if all(key in row for key in keys)]
    if len(rows) < 2:
        return []
    before, after = (np.array([float(row[key]) for row in rows]) for key in keys)
    views = np.array([int(row["index"]) for row in rows])
    title = "Rotation error against the truth (°)"
    return [paired_bars("rotation_error", title, views, before, after)]


def _camera_charts(data: ReportData) -> list[Chart]:
    charts = []
    candidates: list[dict[str, Any]] = [
        c
        for c in data.train.get("candidates", [])
        if np.isfinite(c.get("heldout_error_px", np.nan))
    ]
    if len(candidates) > 1:
        labels = [_CANDIDATE_NAMES.get(c["name"], c["name"]) for c in candidates]
        errors = [float(c["heldout_error_px"]) for c in candidates]
        title = "Epipolar error of held-out matches (px)"
        charts.append(before_after("heldout_epipolar", title, labels, errors))
    charts += _true_error_chart(data)
    change = data.pose_change()
    if change is not None and change[0].max() > UNCHANGED_DEG:
        rotation_deg, moved = change
        charts.append(bars_per_view("rotation_change", "Rotation by refinement (°)", rotation_deg))
        title = f"Movement by refinement ({data.unit_label})"
        charts.append(bars_per_view("centre_change", title, moved, ORANGE))
    if data.match_counts is not None and data.match_counts.any():
        charts.append(match_matrix(data.match_counts))
        cameras = data.after or data.before
        if cameras is not None:
            flat = seen_from_above(cameras.c2w[:, :3, 3], data.up)
            charts.append(match_graph(flat, data.match_counts))
    return charts
