"""Where the cameras look: common focus, spheres inside the frames, visibility of points."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.geometry.cameras import project

ON_THEIR_SIDE = 0.2
"""By so much the photos' horizontal agrees better than their vertical (mean squared cosines)."""


@dataclass(frozen=True)
class Frusta:
    """Pinhole views of one scene.

    Attributes:
        K: (N, 3, 3) intrinsics, pixels; any convention, half a pixel is irrelevant here.
        c2w: (N, 4, 4) camera-to-world.
        sizes_px: (N, 2) width, height.
    """

    K: NDArray[np.float64]
    c2w: NDArray[np.float64]
    sizes_px: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.c2w)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Camera centres (N, 3)."""
        return self.c2w[:, :3, 3]

    @property
    def directions(self) -> NDArray[np.float64]:
        """Unit viewing directions (N, 3) along the optical axes."""
        return self.c2w[:, :3, 2]

    @property
    def up(self) -> NDArray[np.float64]:
        """Unit up (3,), as the photos have it in the mean.

        Around an object, photos that lie on either side disagree about their own up and agree about
        the line from left to right: that is upright then, and up is where cameras look down from.
        """
        up = -self.c2w[:, :3, 1].mean(axis=0)
        (agree_y, _), (agree_x, line) = (_common_line(self.c2w[:, :3, i]) for i in (1, 0))
        if agree_x > agree_y + ON_THEIR_SIDE:
            up = -line if line @ self.directions.sum(axis=0) > 0 else line
        return up / max(float(np.linalg.norm(up)), 1e-12)


def _common_line(axes: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """The line (3,) that unit axes (N, 3) of either sign lie along, and their mean cos² to it."""
    values, vectors = np.linalg.eigh(axes.T @ axes / len(axes))
    return float(values[-1]), vectors[:, -1]


@dataclass(frozen=True)
class Focus:
    """The point that the optical axes pass closest to.

    Attributes:
        point: (3,).
        conditioning: smallest eigenvalue of the mean projector, 0 for parallel axes; about the
            squared sine of the typical angle between axes.
        in_front: share of the cameras that have the point in front of them.
        distance: median distance of the cameras from it.
    """

    point: NDArray[np.float64]
    conditioning: float
    in_front: float
    distance: float


def find_focus(frusta: Frusta, rounds: int = 10) -> Focus:
    """Least distances (not squared: reweighted) from a point to the optical axes."""
    directions, centres = frusta.directions, frusta.centres
    projectors = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    weights = np.ones(len(frusta))
    point = centres.mean(axis=0)
    for _ in range(rounds):
        normal = (weights[:, None, None] * projectors).sum(axis=0) + 1e-9 * np.eye(3)
        pulled = np.einsum("nij,nj->ni", projectors, centres) * weights[:, None]
        point = np.linalg.solve(normal, pulled.sum(axis=0))
        missed = np.linalg.norm(np.einsum("nij,nj->ni", projectors, point - centres), axis=1)
        weights = 1.0 / np.maximum(missed, 0.1 * np.median(missed) + 1e-12)
    depth = ((point - centres) * directions).sum(axis=1)
    return Focus(
        point=point,
        conditioning=float(np.linalg.eigvalsh(projectors.mean(axis=0))[0]),
        in_front=float((depth > 0).mean()),
        distance=float(np.median(np.linalg.norm(centres - point, axis=1))),
    )


def inscribed_radii(frusta: Frusta, centre: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) radius of the largest sphere around `centre` that a view shows whole.

    Negative where the view does not show the centre itself.
    """
    radii = np.empty(len(frusta))
    for i, (K, c2w, (width, height)) in enumerate(
        zip(frusta.K, frusta.c2w, frusta.sizes_px, strict=True)
    ):
        corners = np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1.0]])
        rays = corners @ np.linalg.inv(K).T
        normals = np.cross(rays, np.roll(rays, -1, axis=0))  # of the four sides, inward
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        in_camera = c2w[:3, :3].T @ (centre - c2w[:3, 3])
        radii[i] = (normals @ in_camera).min()
    return radii


def seen_by(frusta: Frusta, points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, P): whether a view's frame contains a point, hidden or not."""
    seen = np.zeros((len(frusta), len(points)), dtype=bool)
    for i, (K, c2w, size) in enumerate(zip(frusta.K, frusta.c2w, frusta.sizes_px, strict=True)):
        xy_px, _ = project(K, c2w, points)
        with np.errstate(invalid="ignore"):
            seen[i] = ((xy_px >= 0) & (xy_px < size)).all(axis=1)
    return seen


def sphere_share_of_views(
    frusta: Frusta, centre: NDArray[np.float64], radius: float, grid: int = 64
) -> NDArray[np.float64]:
    """(N,) share of each frame that the sphere covers, on a grid of pixels."""
    shares = np.empty(len(frusta))
    steps = (np.arange(grid) + 0.5) / grid
    for i, (K, c2w, (width, height)) in enumerate(
        zip(frusta.K, frusta.c2w, frusta.sizes_px, strict=True)
    ):
        x, y = np.meshgrid(steps * width, steps * height)
        pixels = np.stack([x.ravel(), y.ravel(), np.ones(grid * grid)], axis=1)
        rays = pixels @ np.linalg.inv(K).T @ c2w[:3, :3].T
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        to_centre = centre - c2w[:3, 3]
        along = rays @ to_centre
        miss_squared = to_centre @ to_centre - along**2
        inside = to_centre @ to_centre < radius**2
        shares[i] = 1.0 if inside else ((along > 0) & (miss_squared < radius**2)).mean()
    return shares
