"""Which verified pairs of photos are look-alikes: places that only look the same.

Repeated or symmetric texture (a box with the same print on opposite sides) verifies between photos
of different places. Mapping takes such pairs at their word and ends in a model that is wrong as a
whole. Two things tell them apart:

- Photos of the same place agree on the background too. What look-alikes share is repeated, and
  matches in many photos; features that match in few are what makes a place unmistakable. So each
  pair is judged by the share of a photo's surface, weighted by rarity, that it explains (the idea
  of inverse document frequency, Sivic and Zisserman, "Video Google", ICCV 2003).
- Right relative rotations close to cycles. Every photo's best pairs are averaged robustly (spectral
  relaxation of rotation synchronisation, Arie-Nachimson et al., "Global motion estimation from
  point matches", 3DIMPVT 2012, reweighted with a Geman-McClure kernel), for several numbers of
  pairs a photo. Only if all of these solutions are the same are they believed: wrong ones differ.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.progress import Progress
from pipeline.sfm.twoview import TwoViewTable, VerifiedPair

CELLS_PER_SIDE = 10
BEST_PAIRS = (3, 4, 5, 6)
ROUNDS = 50
FIRST_SCALE_DEG, LAST_SCALE_DEG, SHRINK = 30.0, 5.0, 0.9
SAME_DEG = 2.0
"""Solutions that differ by less, in the median over the photos, are one."""
CLOSE_DEG = 6.0
"""A pair whose relative rotation is this close to the averaged ones is kept."""

Matrices = NDArray[np.float64]


@dataclass(frozen=True)
class Trusted:
    """What is left when look-alikes are set aside.

    Attributes:
        pairs: verified pairs to keep, by image ids.
        image_ids: photos that the averaging placed.
        w2c_rotations: (N, 3, 3) their averaged rotations, up to one common rotation.
        set_aside: number of the other pairs.
    """

    pairs: frozenset[tuple[int, int]]
    image_ids: list[int]
    w2c_rotations: Matrices
    set_aside: int


def trusted_pairs(
    table: TwoViewTable, cameras: dict[int, pycolmap.Camera], seed: int, progress: Progress
) -> Trusted | None:
    """Tell look-alikes from true pairs; None where the evidence does not settle it.

    Args:
        cameras: by image id; a focal length from the contradicted model is good enough.
    """
    coverage = rarity_coverage(table, cameras)
    pairs, weights, relative = [], [], []
    for done, (pair, weight) in enumerate(zip(table.pairs, coverage, strict=True), start=1):
        rotation = _relative_rotation(pair, table, cameras, seed)
        if rotation is not None:
            pairs.append((pair.image1, pair.image2))
            weights.append(weight)
            relative.append(rotation)
        progress.advance("look-alikes", done, len(table.pairs))
    if len(pairs) < len(cameras):
        return None
    image_ids = sorted({i for pair in pairs for i in pair})
    index = {image_id: n for n, image_id in enumerate(image_ids)}
    edges = np.array([(index[a], index[b]) for a, b in pairs])
    rotations = agreed_rotations(edges, np.stack(relative), np.array(weights), len(image_ids))
    if rotations is None:
        return None
    close = misfit_deg(rotations, edges, np.stack(relative)) < CLOSE_DEG
    kept = frozenset(pair for pair, fits in zip(pairs, close, strict=True) if fits)
    return Trusted(kept, image_ids, rotations, len(table.pairs) - len(kept))


def rarity_coverage(
    table: TwoViewTable, cameras: dict[int, pycolmap.Camera]
) -> NDArray[np.float64]:
    """(P,) how much of its two photos each pair explains, 0 to 1.

    A photo's surface is a grid of cells that hold matched features. A cell weighs the less the more
    pairs its features match in. A pair explains the cells that hold its features; the geometric
    mean over both photos counts.
    """
    degree: dict[int, Counter[int]] = {image_id: Counter() for image_id in cameras}
    for pair in table.pairs:
        degree[pair.image1].update(pair.features[:, 0].tolist())
        degree[pair.image2].update(pair.features[:, 1].tolist())
    cells = {i: _cells(table.keypoints_px[i], camera) for i, camera in cameras.items()}
    weight: dict[int, dict[int, float]] = {}
    for image_id, counts in degree.items():
        held: dict[int, list[int]] = {}
        for feature, count in counts.items():
            held.setdefault(int(cells[image_id][feature]), []).append(count)
        weight[image_id] = {cell: 1.0 / float(np.mean(c)) for cell, c in held.items()}
    total = {image_id: sum(w.values()) for image_id, w in weight.items()}

    def share(image_id: int, features: NDArray[np.int64]) -> float:
        explained = {int(cell) for cell in cells[image_id][features]}
        return sum(weight[image_id][cell] for cell in explained) / total[image_id]

    return np.array(
        [
            np.sqrt(share(p.image1, p.features[:, 0]) * share(p.image2, p.features[:, 1]))
            for p in table.pairs
        ]
    )


def agreed_rotations(
    edges: NDArray[np.int64], relative: Matrices, weights: NDArray[np.float64], count: int
) -> Matrices | None:
    """Rotations (N, 3, 3) that all selections of best pairs lead to, or None.

    Args:
        edges: (P, 2) indices i, j.
        relative: (P, 3, 3) R_j R_iᵀ.
        weights: (P,) how far each pair is trusted beforehand.
        count: N.
    """
    solutions = []
    for best in BEST_PAIRS:
        chosen = _best_of_each(edges, weights, count, best)
        solutions.append(average_rotations(edges[chosen], relative[chosen], weights[chosen], count))
    first = solutions[0]
    for other in solutions[1:]:
        if difference_deg(first, other) > SAME_DEG:
            return None
    return solutions[-1]


def average_rotations(
    edges: NDArray[np.int64], relative: Matrices, weights: NDArray[np.float64], count: int
) -> Matrices:
    """Rotations (N, 3, 3) that explain the relative ones best, up to one common rotation."""
    prior = weights**2
    current, scale_deg = prior, FIRST_SCALE_DEG
    rotations = _spectral(edges, relative, current, count)
    for _ in range(ROUNDS):
        scale_deg = max(LAST_SCALE_DEG, scale_deg * SHRINK)
        misfit = misfit_deg(rotations, edges, relative)
        current = prior / (1 + (misfit / scale_deg) ** 2) ** 2
        rotations = _spectral(edges, relative, current, count)
    return rotations


def misfit_deg(
    rotations: Matrices, edges: NDArray[np.int64], relative: Matrices
) -> NDArray[np.float64]:
    """(P,) angles between each relative rotation and that of the rotations."""
    predicted = rotations[edges[:, 1]] @ np.swapaxes(rotations[edges[:, 0]], -1, -2)
    return rotation_angles_deg(predicted, relative)


def _spectral(
    edges: NDArray[np.int64], relative: Matrices, weights: NDArray[np.float64], count: int
) -> Matrices:
    """The three leading eigenvectors of the normalised block matrix, made rotations."""
    blocks = np.zeros((count, 3, count, 3))
    degree = np.zeros(count)
    for (i, j), rotation, weight in zip(edges, relative, weights, strict=True):
        blocks[j, :, i, :] += weight * rotation
        blocks[i, :, j, :] += weight * rotation.T
        degree[[i, j]] += weight
    scale = np.repeat(1 / np.sqrt(np.maximum(degree, 1e-12)), 3)
    matrix = scale[:, None] * blocks.reshape(3 * count, 3 * count) * scale
    vectors = np.linalg.eigh(matrix)[1][:, -3:]
    stacked = (scale[:, None] * vectors).reshape(count, 3, 3)
    if np.linalg.det(stacked).mean() < 0:
        stacked[..., 2] *= -1
    u, _, vt = np.linalg.svd(stacked)
    u[..., 2] *= np.linalg.det(u @ vt)[:, None]
    return np.asarray(u @ vt)


def _best_of_each(
    edges: NDArray[np.int64], weights: NDArray[np.float64], count: int, best: int
) -> NDArray[np.int64]:
    chosen: set[int] = set()
    for i in range(count):
        own = np.flatnonzero((edges == i).any(axis=1))
        chosen.update(own[np.argsort(-weights[own], kind="stable")[:best]].tolist())
    return np.array(sorted(chosen))


def difference_deg(first: Matrices, second: Matrices) -> float:
    """Median angle between two solutions (N, 3, 3) after their common rotation is taken out."""
    return float(np.median(differences_deg(first, second)))


def differences_deg(first: Matrices, second: Matrices) -> NDArray[np.float64]:
    """(N,) angles between two solutions (N, 3, 3) after their common rotation is taken out."""
    # solutions are R_i G; of many candidates G_i = second_iᵀ first_i the most central one counts
    gauges = np.swapaxes(second, -1, -2) @ first
    spread = [float(np.median(rotation_angles_deg(gauges, g[None]))) for g in gauges]
    gauge = gauges[int(np.argmin(spread))]
    return rotation_angles_deg(second @ gauge, first)


def _cells(xy_px: NDArray[np.float64], camera: pycolmap.Camera) -> NDArray[np.int64]:
    side = max(camera.width, camera.height) / CELLS_PER_SIDE
    grid = np.clip(xy_px // side, 0, CELLS_PER_SIDE - 1).astype(np.int64)
    return np.asarray(grid[:, 1] * CELLS_PER_SIDE + grid[:, 0])


def _relative_rotation(
    pair: VerifiedPair, table: TwoViewTable, cameras: dict[int, pycolmap.Camera], seed: int
) -> Matrices | None:
    """Rotation (3, 3) from the first photo's camera to the second's, by the verified matches."""
    camera1, camera2 = cameras[pair.image1], cameras[pair.image2]
    first = table.keypoints_px[pair.image1][pair.features[:, 0]]
    second = table.keypoints_px[pair.image2][pair.features[:, 1]]
    matches = np.repeat(np.arange(len(first), dtype=np.uint32)[:, None], 2, axis=1)
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    geometry = pycolmap.estimate_calibrated_two_view_geometry(
        camera1, first, camera2, second, matches, options
    )
    if geometry.cam2_from_cam1 is None and not pycolmap.estimate_two_view_geometry_pose(
        camera1, first, camera2, second, geometry
    ):
        return None
    pose = geometry.cam2_from_cam1
    return None if pose is None else np.asarray(pose.rotation.matrix())
