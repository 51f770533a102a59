"""How well and how fast `pipeline.sfm.retrieval` finds overlapping photos in a large set.

    python benchmarks/retrieval.py [PHOTOS]

Cameras all around a sphere of points, each seeing a cap of it; every point has a SIFT-like
descriptor that is seen with noise, and a third of a photo's features belong to nothing.
"""

import sys
import time

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from pipeline.sfm.retrieval import similar_photos

POINTS, NEIGHBOURS, CAP_DEG, NOISE, CLUTTER = 4000, 10, 30.0, 12.0, 150


def main() -> None:
    """Print recall, connectivity and CPU time."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 600
    rng = np.random.default_rng(0)
    seen, descriptors = _photos(count, rng)
    started = time.process_time()
    found = similar_photos(descriptors, NEIGHBOURS, seed=0)
    spent_s = time.process_time() - started
    overlap = seen.astype(np.int64) @ seen.T.astype(np.int64)
    np.fill_diagonal(overlap, -1)
    best = np.argsort(-overlap, axis=1)[:, :NEIGHBOURS]
    recall = np.mean([len({*found[i]} & {*best[i].tolist()}) / NEIGHBOURS for i in range(count)])
    half = np.mean([np.mean(overlap[i, found[i]] > seen[i].sum() / 2) for i in range(count)])
    rows = np.repeat(np.arange(count), [len(f) for f in found])
    graph = csr_matrix((np.ones(len(rows)), (rows, np.concatenate(found))), shape=(count, count))
    pieces = connected_components(graph, directed=False)[0]
    pairs = len({(min(i, j), max(i, j)) for i in range(count) for j in found[i]})
    print(
        f"{count} photos: {pairs} pairs instead of {count * (count - 1) // 2};"
        f" {recall:.1%} of the {NEIGHBOURS} best partners found,"
        f" {half:.1%} of the pairs share more than half of what they show;"
        f" {pieces} connected piece(s); {spent_s:.1f} CPU-s"
    )


def _photos(
    count: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], list[NDArray[np.uint8]]]:
    cameras, points = rng.normal(size=(count, 3)), rng.normal(size=(POINTS, 3))
    cameras /= np.linalg.norm(cameras, axis=1, keepdims=True)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    seen = cameras @ points.T > np.cos(np.radians(CAP_DEG))
    own = rng.integers(0, 200, (POINTS, 128))
    descriptors = []
    for row in seen:
        found = np.flatnonzero(row & (rng.random(POINTS) < 0.7))
        noisy = own[found] + rng.normal(0, NOISE, (len(found), 128)).round()
        both = np.concatenate([noisy, rng.integers(0, 200, (CLUTTER, 128))])
        descriptors.append(np.clip(both, 0, 255).astype(np.uint8))
    return seen, descriptors


if __name__ == "__main__":
    main()
