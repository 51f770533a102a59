"""Photos with similar content, without any downloaded vocabulary.

The vocabulary is learnt from the set itself: k-means over a sample of its SIFT descriptors, then
one VLAD vector a photo (Jégou et al., "Aggregating local descriptors into a compact image
representation", CVPR 2010) with intra-normalisation (Arandjelović and Zisserman, "All about VLAD",
CVPR 2013), compared by the inner product.
"""

import numpy as np
from numpy.typing import NDArray

WORDS = 64
SAMPLE = 20000
ROUNDS = 12


def similar_photos(
    descriptors: list[NDArray[np.uint8]], neighbours: int, seed: int
) -> list[list[int]]:
    """For each photo the indices of the most similar others, best first.

    Args:
        descriptors: one (F, 128) array a photo; may be empty.
        neighbours: at most this many a photo.
        seed: of the sample and of the first words.
    """
    rng = np.random.default_rng(seed)
    words = _vocabulary(descriptors, rng)
    vectors = np.stack([vlad(d, words) for d in descriptors])
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, -np.inf)
    order = np.argsort(-likeness, axis=1, kind="stable")[:, :neighbours]
    return [
        [int(j) for j in row if np.isfinite(likeness[i, j]) and likeness[i, j] > 0]
        for i, row in enumerate(order)
    ]


def vlad(descriptors: NDArray[np.uint8], words: NDArray[np.float32]) -> NDArray[np.float32]:
    """VLAD vector (W·128,) of unit length; zero for a photo without features."""
    sums = np.zeros_like(words)
    if len(descriptors):
        points = _root(descriptors)
        nearest = _nearest(points, words)
        np.add.at(sums, nearest, points - words[nearest])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    flat = sums.ravel()
    return flat / max(float(np.linalg.norm(flat)), 1e-12)


def _vocabulary(
    descriptors: list[NDArray[np.uint8]], rng: np.random.Generator
) -> NDArray[np.float32]:
    share = max(1, SAMPLE // max(1, len(descriptors)))
    sample = [d[rng.permutation(len(d))[:share]] for d in descriptors if len(d)]
    points = _root(np.concatenate(sample)) if sample else np.zeros((1, 128), np.float32)
    words = points[rng.permutation(len(points))[:WORDS]].copy()
    for _ in range(ROUNDS):
        nearest = _nearest(points, words)
        sums = np.zeros_like(words)
        np.add.at(sums, nearest, points)
        counts = np.bincount(nearest, minlength=len(words))
        filled = counts > 0
        words[filled] = sums[filled] / counts[filled, None]
    return words


def _root(descriptors: NDArray[np.uint8]) -> NDArray[np.float32]:
    points = descriptors.astype(np.float32)
    return points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)


def _nearest(points: NDArray[np.float32], words: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.argmax(points @ words.T - 0.5 * (words**2).sum(axis=1), axis=1)
