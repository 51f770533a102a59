"""The region of interest as a picture: three sides of the scene, and circles on some photos."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from pipeline.formats.case import read_rgb, sorted_images
from pipeline.formats.idr import IdrCameras, load_idr_cameras
from pipeline.formats.sparse import load_sparse
from pipeline.geometry.cameras import project

PHOTOS = 6
SPHERE_COLOUR, BOX_COLOUR, CAMERA_COLOUR = "#d81b60", "#1e88e5", "#444444"
SHOWN_RADII = 6.0
"""Points farther from the sphere's centre than this many radii are left out of the picture."""


@dataclass(frozen=True)
class RoiScene:
    """What the picture shows.

    Attributes:
        cameras: of the undistorted views, with the region.
        images: the views.
        points: (P, 3) sparse points, world.
        up: unit (3,).
        box: corners low and high (2, 3) of a given box, world.
        unit: of lengths.
    """

    cameras: IdrCameras
    images: list[Path]
    points: NDArray[np.float64]
    up: NDArray[np.float64]
    box: NDArray[np.float64] | None
    unit: str


def load_roi_scene(scene_dir: Path, facts: dict) -> RoiScene:
    """Read what a scene stage wrote; `facts` is its `scene.json`."""
    cameras = load_idr_cameras(scene_dir / "cameras_colmap.npz")
    up = np.array(facts.get("up") or -cameras.c2w[:, :3, 1].mean(axis=0), dtype=np.float64)
    box = facts.get("roi_box")
    return RoiScene(
        cameras,
        sorted_images(scene_dir / "image"),
        load_sparse(scene_dir).points,
        up / np.linalg.norm(up),
        None if box is None else np.array(box, dtype=np.float64).reshape(2, 3),
        str(facts.get("unit", "unknown")),
    )


def draw_roi(path: Path, scene: RoiScene) -> None:
    """Write the PNG: seen from above, from the front and from a side, then on some photos."""
    figure = plt.figure(figsize=(15, 13), dpi=100, layout="constrained")
    panels_of = figure.subfigures(2, 1, height_ratios=[1, 1.25], squeeze=False)
    upper, lower = panels_of[0, 0], panels_of[1, 0]
    axes = side_axes(scene)
    sides = (("from above", 0, 1), ("from the front", 0, 2), ("from the side", 1, 2))
    for panel, (title, right, upward) in zip(upper.subplots(1, 3), sides, strict=True):
        _draw_side(panel, scene, axes[right], axes[upward], title)
    chosen = np.unique(np.linspace(0, len(scene.images) - 1, PHOTOS).round().astype(int))
    panels = np.ravel(lower.subplots(2, (len(chosen) + 1) // 2))
    for panel in panels:
        panel.set_axis_off()
    for panel, index in zip(panels, chosen, strict=False):
        _draw_photo(panel, scene, int(index))
    figure.savefig(path)
    plt.close(figure)


def side_axes(scene: RoiScene) -> NDArray[np.float64]:
    """Rows: right, front and up (3, 3) of the picture; front is where most cameras stand."""
    toward = (scene.cameras.c2w[:, :3, 3] - scene.cameras.centre).mean(axis=0)
    right = np.cross(scene.up, toward)
    if np.linalg.norm(right) < 1e-6 * max(float(np.linalg.norm(toward)), 1e-12):
        right = np.cross(scene.up, np.eye(3)[int(np.argmin(np.abs(scene.up)))])
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(scene.up, right), scene.up])


def sphere_outline(
    K: NDArray[np.float64], c2w: NDArray[np.float64], centre: NDArray[np.float64], radius: float
) -> NDArray[np.float64] | None:
    """Pixels (S, 2) of the sphere's outline as a camera sees it; None from inside or behind.

    The rays that touch a sphere form a cone around its centre; they touch it on a circle.
    """
    to_centre = centre - c2w[:3, 3]
    distance = float(np.linalg.norm(to_centre))
    if distance <= radius:
        return None
    axis = to_centre / distance
    side = np.cross(axis, np.eye(3)[int(np.argmin(np.abs(axis)))])
    side /= np.linalg.norm(side)
    angles = np.linspace(0, 2 * np.pi, 181)[:, None]
    ring = np.cos(angles) * side + np.sin(angles) * np.cross(axis, side)
    touching = centre - axis * radius**2 / distance
    circle = touching + ring * radius * np.sqrt(1 - (radius / distance) ** 2)
    xy_px, depth = project(K, c2w, circle)
    return xy_px if (depth > 0).all() else None


def _draw_side(
    panel: Axes,
    scene: RoiScene,
    right: NDArray[np.float64],
    upward: NDArray[np.float64],
    title: str,
) -> None:
    centre, radius = scene.cameras.centre, scene.cameras.radius
    plane = np.stack([right, upward], axis=1)
    near = np.linalg.norm(scene.points - centre, axis=1) < SHOWN_RADII * radius
    points = (scene.points[near] - centre) @ plane
    inside = np.linalg.norm(scene.points[near] - centre, axis=1) < radius
    panel.plot(*points[~inside].T, ".", markersize=1, color="#bbbbbb")
    panel.plot(*points[inside].T, ".", markersize=2, color="#2e7d32")
    places = (scene.cameras.c2w[:, :3, 3] - centre) @ plane
    looking = scene.cameras.c2w[:, :3, 2] @ plane * 0.4 * radius
    panel.add_collection(
        LineCollection(list(np.stack([places, places + looking], axis=1)), colors=CAMERA_COLOUR)
    )
    panel.plot(*places.T, "o", markersize=3, color=CAMERA_COLOUR)
    panel.add_patch(plt.Circle((0, 0), radius, fill=False, color=SPHERE_COLOUR, linewidth=2))
    if scene.box is not None:
        edges = (_box_edges(scene.box) - centre) @ plane
        panel.add_collection(LineCollection(list(edges), colors=BOX_COLOUR, linewidths=1))
    panel.set_aspect("equal")
    panel.autoscale_view()
    unit = "world units" if scene.unit == "unknown" else scene.unit
    panel.set_title(f"{title}, relative to the centre ({unit})", fontsize=10)


def _draw_photo(panel: Axes, scene: RoiScene, index: int) -> None:
    rgb = read_rgb(scene.images[index])
    height, width = rgb.shape[:2]
    panel.imshow(rgb)
    K, c2w = scene.cameras.K[index], scene.cameras.c2w[index]
    outline = sphere_outline(K, c2w, scene.cameras.centre, scene.cameras.radius)
    if outline is not None:
        panel.plot(*outline.T, color=SPHERE_COLOUR, linewidth=2)
    if scene.box is not None:
        corners, depth = project(K, c2w, _box_edges(scene.box).reshape(-1, 3))
        if (depth > 0).all():
            lines = LineCollection(list(corners.reshape(-1, 2, 2)), colors=BOX_COLOUR, linewidths=1)
            panel.add_collection(lines)
    panel.set_xlim(-0.5, width - 0.5)
    panel.set_ylim(height - 0.5, -0.5)
    panel.set_title(scene.images[index].name, fontsize=9)


def _box_edges(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """The twelve edges (12, 2, 3) of a box from its corners low and high (2, 3)."""
    bits = np.array([[(i >> axis) & 1 for axis in range(3)] for i in range(8)])
    corners = np.where(bits == 1, box[1], box[0])
    pairs = [(i, i | 1 << axis) for i in range(8) for axis in range(3) if not i >> axis & 1]
    return corners[np.array(pairs)]
