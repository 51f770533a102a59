"""The evaluation of the DTU multi-view stereo set, as in its public Python version; lengths in mm.

1. The mesh as points: all its vertices, and samples of its triangles about 0.2 mm apart.
2. Shuffled, and thinned in that order so that no two are within 0.2 mm.
3. Kept: from 60 mm below to 120 mm above the scan's box (the margins differ: the original's cut is
   `box + 2 · margin` above), and of these, as "observed", what the scan's mask admits.
4. Accuracy: mean distance from the observed points to the reference. Completeness: mean distance
   from the reference above the table's plane to all points within the bounds, observed or not.
   Distances of 20 mm or more are left out. Overall: the mean of both.

Source: Jensen et al., "Large scale multi-view stereopsis evaluation", CVPR 2014; conventions of
jzhangbs/DTUeval-python, which the published tables of neural surfaces use.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.errors import InputError
from pipeline.formats.matlab import load_arrays
from pipeline.metrics.clouds import LET_CAMERAS_ALIGN, Prediction, load_points
from pipeline.metrics.thinning import thin_in_order

DENSITY_MM = 0.2
MARGIN_BELOW_MM, MARGIN_ABOVE_MM = 60.0, 120.0
CAP_MM = 20.0


@dataclass(frozen=True)
class DtuReference:
    """What DTU ships for one scan.

    Attributes:
        points: (R, 3) structured-light scan, mm.
        mask: (X, Y, Z) bool, voxels that were observed.
        box: (2, 3) float32, lower and upper corner of the mask, mm.
        cell_mm: edge of a voxel.
        plane: (4,) of the table; above it P · (x, y, z, 1) > 0.
    """

    points: NDArray
    mask: NDArray
    box: NDArray
    cell_mm: float
    plane: NDArray


@dataclass(frozen=True)
class DtuErrors:
    """Distances in mm, those of `CAP_MM` or more left out.

    Attributes:
        accuracy: (A,) observed points → reference.
        accuracy_unmasked: (U,) the same of all points within the bounds, observed or not.
        completeness: (C,) reference above the plane → points within the bounds.
        counts: how many points there were after each step.
    """

    accuracy: NDArray
    accuracy_unmasked: NDArray
    completeness: NDArray
    counts: dict[str, int]

    @property
    def overall(self) -> float:
        """Mean of mean accuracy and mean completeness."""
        return float((self.accuracy.mean() + self.completeness.mean()) / 2)

    @property
    def overall_unmasked(self) -> float:
        """The same without the mask."""
        return float((self.accuracy_unmasked.mean() + self.completeness.mean()) / 2)


def load_dtu_reference(folder: Path, scan: int) -> DtuReference:
    """Read `Points/stl/stl<scan>_total.ply`, `ObsMask/ObsMask<scan>_10.mat`, `ObsMask/Plane….mat`.

    Raises:
        InputError: a file is missing or holds something else; each is named.
    """
    mask = _read_mat(folder / "ObsMask" / f"ObsMask{scan}_10.mat", ("ObsMask", "BB", "Res"))
    plane = _read_mat(folder / "ObsMask" / f"Plane{scan}.mat", ("P",))["P"].reshape(-1)
    path = folder / "Points" / "stl" / f"stl{scan:03d}_total.ply"
    points = load_points(path)
    box = mask["BB"].astype(np.float32)
    if mask["ObsMask"].ndim != 3 or box.shape != (2, 3) or plane.shape != (4,):
        raise InputError(f"{folder}: the mask or the plane of scan {scan} has another shape")
    return DtuReference(points, mask["ObsMask"] != 0, box, float(mask["Res"].item()), plane)


def _read_mat(path: Path, names: tuple[str, ...]) -> dict[str, NDArray]:
    if not path.is_file():
        raise InputError(
            f"no file {path}: the DTU evaluation needs the scan's mask and plane",
            hint="give the folder of DTU's `SampleSet/MVS Data` (Points/ and ObsMask/), and --scan",
        )
    try:
        content = load_arrays(path)
    except (OSError, ValueError, MemoryError) as error:
        raise InputError(f"{path} is not a readable MATLAB file ({error})") from error
    missing = [name for name in names if name not in content]
    if missing:
        raise InputError(f"{path} holds no {missing[0]}")
    return {name: content[name] for name in names}


def sample_mesh(vertices: NDArray, faces: NDArray, density: float = DENSITY_MM) -> NDArray:
    """The points of a mesh: all vertices, then the samples of each triangle in turn.

    A triangle with edges e, f from its first corner is sampled at a + u·e + v·f, u + v < 1, with
    u = (i + ½)/n₁, v = (j + ½)/n₂; the steps adapt to the angle, so that samples lie about
    `density` apart (unit of the vertices) however thin the triangle.
    """
    vertices = np.asarray(vertices, dtype=np.float64)
    a, b, c = vertices[np.asarray(faces, dtype=np.int64)].transpose(1, 0, 2)
    e, f = b - a, c - a
    length_e, length_f = np.linalg.norm(e, axis=1), np.linalg.norm(f, axis=1)
    area2 = np.linalg.norm(np.cross(e, f), axis=1)
    real = np.flatnonzero(area2 > 0)
    step = density * np.sqrt(length_e[real] * length_f[real] / area2[real])
    n = np.floor(np.stack([length_e[real], length_f[real]], axis=1) / step[:, None])
    pairs, group = np.unique(n.astype(np.int64), axis=0, return_inverse=True)
    owners, points = [np.zeros(0, dtype=np.int64)], [np.zeros((0, 3))]
    by_pair = np.argsort(group.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(group.reshape(-1), minlength=len(pairs)))
    for (n1, n2), first, end in zip(pairs.tolist(), [0, *ends], ends, strict=False):
        chosen = by_pair[first:end]
        u, v = _grid(n1, n2)
        if len(u) == 0:
            continue
        faces_of = real[chosen]
        samples = (
            e[faces_of, None] * u[None, :, None]
            + f[faces_of, None] * v[None, :, None]
            + a[faces_of, None]
        )
        points.append(samples.reshape(-1, 3))
        owners.append(np.repeat(faces_of, len(u)))
    by_face = np.argsort(np.concatenate(owners), kind="stable")
    return np.concatenate([vertices, np.concatenate(points)[by_face]])


def _grid(n1: int, n2: int) -> tuple[NDArray, NDArray]:
    """u and v (S,) of a triangle's samples; none where a side is shorter than a step."""
    if n1 == 0 or n2 == 0:
        return np.zeros(0), np.zeros(0)
    u, v = np.meshgrid(
        (np.arange(n1 + 1) + 0.5) / n1, (np.arange(n2 + 1) + 0.5) / n2, indexing="ij"
    )
    inside = u + v < 1
    return u[inside], v[inside]


def evaluate_dtu(prediction: Prediction, reference: DtuReference, seed: int = 0) -> DtuErrors:
    """Distances between a mesh, or points as they are, and a scan.

    Args:
        prediction: in mm, in DTU's world frame.
        seed: of the shuffle that decides which of two close points stays.

    Raises:
        InputError: nothing of the prediction lies where the scan is.
    """
    faces = prediction.faces
    points = (
        sample_mesh(prediction.points, faces) if faces is not None else prediction.points.copy()
    )
    counts = {"points": len(points)}
    np.random.default_rng(seed).shuffle(points, axis=0)
    points = points[thin_in_order(points, DENSITY_MM)]
    counts["thinned"] = len(points)
    lower, upper = reference.box[0] - MARGIN_BELOW_MM, reference.box[1] + MARGIN_ABOVE_MM
    points = points[((points >= lower) & (points < upper)).all(axis=1)]
    seen = observed(points, reference)
    counts |= {"in_bounds": len(points), "observed": int(seen.sum())}
    if not seen.any():
        raise InputError(
            "no point of the mesh lies in the observed part of the scan: the frames differ",
            hint=f"the mesh must be in DTU's world frame, in mm: {LET_CAMERAS_ALIGN}",
        )
    to_reference = cKDTree(reference.points).query(points, workers=-1)[0]
    above = (np.c_[reference.points, np.ones(len(reference.points))] @ reference.plane) > 0
    to_points = cKDTree(points).query(reference.points[above], workers=-1)[0]
    counts |= {"reference": len(reference.points), "reference_above_plane": int(above.sum())}
    errors = DtuErrors(
        accuracy=_below_cap(to_reference[seen]),
        accuracy_unmasked=_below_cap(to_reference),
        completeness=_below_cap(to_points),
        counts=counts,
    )
    if len(errors.accuracy) == 0 or len(errors.completeness) == 0:
        raise InputError(
            f"mesh and scan are nowhere nearer than {CAP_MM:g} mm: the frames do not overlap",
            hint=f"the mesh must be in DTU's world frame, in mm: {LET_CAMERAS_ALIGN}",
        )
    return errors


def observed(points: NDArray, reference: DtuReference) -> NDArray:
    """Whether each point (P, 3) lies in a voxel of the mask; the nearest voxel counts."""
    index = np.around((points - reference.box[:1]) / reference.cell_mm).astype(np.int64)
    inside = ((index >= 0) & (index < reference.mask.shape)).all(axis=1)
    seen = np.zeros(len(points), dtype=bool)
    seen[inside] = reference.mask[tuple(index[inside].T)]
    return seen


def _below_cap(distances: NDArray) -> NDArray:
    return distances[distances < CAP_MM]
