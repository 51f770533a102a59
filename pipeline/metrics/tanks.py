"""The evaluation of Tanks and Temples: shares of two point clouds that are near each other.

1. The source is laid onto the target: a given transform, or one from the cameras; then three
   refinements by ICP with scale on ever finer clouds: voxels of τ within 80 τ; voxels of τ/2 within
   20 τ; all points (every k-th of more than four million) within 2 τ. Both clouds are cropped
   before each. A refinement ends as soon as the share of points with a partner stands still,
   whatever their distance does: the toolbox hands its limit of 20 steps to the RMSE's tolerance,
   and the recorded numbers follow from that.
2. Source moved, both clouds cropped by the scene's polygon volume and averaged in voxels of τ/2.
3. Precision: share of the source with a target point nearer than τ; recall: the other way round;
   F: their harmonic mean.

Source: Knapitsch et al., "Tanks and temples: benchmarking large-scale scene reconstruction",
SIGGRAPH 2017, and its public toolbox. The toolbox finds the first transform from camera positions
by RANSAC; here it is the least-squares similarity of the cameras, or one that is given.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.errors import InputError
from pipeline.formats.json_text import parse_json
from pipeline.geometry.similarity import Similarity
from pipeline.metrics.icp import Registration, icp

TAU_M = {
    "Barn": 0.01,
    "Caterpillar": 0.005,
    "Church": 0.025,
    "Courthouse": 0.025,
    "Ignatius": 0.003,
    "Meetingroom": 0.01,
    "Truck": 0.005,
}
"""The published thresholds of the training scenes, metres."""

MAX_POINTS = 4_000_000
ICP_STEPS = 30
_REFINEMENTS = ((1.0, 80.0), (0.5, 20.0), (None, 2.0))
"""Voxel edge and reach of the three refinements, in τ."""


@dataclass(frozen=True)
class CropVolume:
    """A polygon in the plane across one axis, and limits along that axis (target's frame).

    Attributes:
        axis: 0, 1 or 2.
        polygon: (P, 2) corners, on the two other axes in ascending order.
        low, high: limits along `axis`.
    """

    axis: int
    polygon: NDArray
    low: float
    high: float

    def crop(self, points: NDArray) -> NDArray:
        """The points (Q, 3) that lie inside."""
        across = np.delete(points, self.axis, axis=1)
        along = points[:, self.axis]
        inside: NDArray = (along >= self.low) & (along <= self.high)
        inside &= _in_polygon(across, self.polygon)
        return points[inside]


@dataclass(frozen=True)
class TanksErrors:
    """Result of the protocol.

    Attributes:
        precision, recall, fscore: in [0, 1].
        tau: threshold, unit of the target.
        counts: points after cropping and after averaging.
        registration: how the source was refined onto the target; None where it was not.
    """

    precision: float
    recall: float
    fscore: float
    tau: float
    counts: dict[str, int]
    registration: Registration | None


def load_crop_volume(path: Path) -> CropVolume:
    """Read a `SelectionPolygonVolume` in JSON.

    Raises:
        InputError: not readable, or not such a volume.
    """
    try:
        content = parse_json(path.read_bytes())
        axis = "XYZ".index(content["orthogonal_axis"].upper())
        corners = np.asarray(content["bounding_polygon"], dtype=np.float64).reshape(-1, 3)
        low, high = float(content["axis_min"]), float(content["axis_max"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a crop volume ({error})",
            hint="expected the scene's .json of Tanks and Temples (SelectionPolygonVolume)",
        ) from error
    return CropVolume(axis, np.delete(corners, axis, axis=1), low, high)


def refine(
    source: NDArray, target: NDArray, start: Similarity, tau: float, volume: CropVolume | None
) -> Registration:
    """The three refinements; points (S, 3) and (T, 3), start: source → target."""
    found = Registration(start, 0.0, 0.0, 0)
    target = _crop(target, volume)
    for voxel, reach in _REFINEMENTS:
        moved = _crop(found.similarity.apply_points(source), volume)
        _check_some(moved, "the prediction", volume)
        here, there = (
            voxel_means(cloud, voxel * tau) if voxel else every_kth(cloud)
            for cloud in (moved, target)
        )
        step = icp(
            here,
            there,
            reach * tau,
            iterations=ICP_STEPS,
            with_scale=True,
            rmse_tolerance=np.inf,
        )
        total = Similarity.from_matrix(step.similarity.matrix @ found.similarity.matrix)
        found = Registration(
            total, step.fitness, step.inlier_rmse, found.iterations + step.iterations
        )
    return found


def evaluate_tanks(
    source: NDArray,
    target: NDArray,
    tau: float,
    volume: CropVolume | None = None,
    start: Similarity | None = None,
    refined: bool = True,
) -> TanksErrors:
    """Precision, recall and F of source points (S, 3) against target points (T, 3).

    Args:
        tau: threshold, unit of the target.
        volume: part of the target's frame that counts; all of it if None.
        start: source → target; identity if None.
        refined: whether ICP refines the start.

    Raises:
        InputError: nothing of a cloud lies in the volume.
    """
    start = start or Similarity.identity()
    registration = refine(source, target, start, tau, volume) if refined else None
    moved = (registration.similarity if registration else start).apply_points(source)
    counts: dict[str, int] = {}
    thinned = []
    for name, cloud in (("source", moved), ("target", target)):
        cropped = _crop(cloud, volume)
        what = "the prediction" if name == "source" else "the ground truth"
        _check_some(cropped, what, volume)
        thinned.append(voxel_means(cropped, tau / 2))
        counts |= {f"{name}_cropped": len(cropped), f"{name}_voxels": len(thinned[-1])}
    precision, recall = (
        float((cKDTree(there).query(here, workers=-1)[0] < tau).mean())
        for here, there in (thinned, thinned[::-1])
    )
    both = precision + recall
    fscore = 2 * precision * recall / both if both > 0 else 0.0
    return TanksErrors(precision, recall, fscore, tau, counts, registration)


def voxel_means(points: NDArray, edge: float) -> NDArray:
    """Mean (Q, 3) of the points (P, 3) in each voxel; the grid begins half a voxel below them."""
    origin = points.min(axis=0) - edge / 2
    cells = np.floor((points - origin) / edge).astype(np.int64)
    key = np.ravel_multi_index(cells.T, cells.max(axis=0) + 1)
    _, voxel, count = np.unique(key, return_inverse=True, return_counts=True)
    sums = [np.bincount(voxel, weights=points[:, axis]) for axis in range(3)]
    means: NDArray = np.stack(sums, axis=1) / count[:, None]
    return means


def every_kth(points: NDArray) -> NDArray:
    """Every k-th point, where there are more than `MAX_POINTS`."""
    return points[:: round(len(points) / MAX_POINTS)] if len(points) > MAX_POINTS else points


def _crop(points: NDArray, volume: CropVolume | None) -> NDArray:
    return points if volume is None else volume.crop(points)


def _check_some(points: NDArray, what: str, volume: CropVolume | None) -> None:
    if len(points) == 0:
        where = "" if volume is None else " inside the crop volume"
        raise InputError(
            f"{what} has no points{where}: the frames do not overlap",
            hint="give the transform that leads from the mesh to the ground truth (--transform)",
        )


def _in_polygon(points: NDArray, corners: NDArray) -> NDArray:
    """Whether points (P, 2) lie in a polygon (C, 2), by the even-odd rule."""
    inside = np.zeros(len(points), dtype=bool)
    x, y = points.T
    for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        crosses = (ay > y) != (by > y)
        if by != ay:
            inside ^= crosses & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return inside
