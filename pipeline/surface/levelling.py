"""Making the seams between photos disappear: each chart's colours are shifted, smoothly.

Source: Ivanov and Lempitsky, "Seamless mosaicing of image-based texture maps", CVPR 2007, and
Waechter et al., "Let there be color!", ECCV 2014, equation 3: a correction at every vertex of every
chart that makes the charts agree at their seams and changes as little as possible along edges. It
takes care of different exposures and of vignetting alike.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import cg

SMOOTHNESS = 10.0
"""Weight of equal corrections along an edge, against equal colours at a seam."""
ANCHOR = 1e-3
"""Weight of no correction at all, so that the whole keeps its brightness."""
LARGEST = 50.0
"""Corrections beyond this, in grey levels, are not exposure but a wrong match."""


def level_seams(colour: NDArray, vertex: NDArray, faces: NDArray) -> NDArray:
    """Corrections (W, 3) in grey levels to add to the charts' colours.

    Args:
        colour: (W, 3) of each chart's vertices, as its own photo shows them.
        vertex: (W,) vertex of the mesh that each is; the copies of one are in several charts.
        faces: (F, 3) into the W.
    """
    count = len(vertex)
    seams, edges = _copies(vertex), _edges(faces)
    seam = _differences(seams, count)
    smooth = _differences(edges, count)
    system = (
        seam.T @ seam + SMOOTHNESS * (smooth.T @ smooth) + ANCHOR * diags(np.ones(count))
    ).tocsr()
    preconditioner = diags(1 / system.diagonal())
    correction = np.zeros((count, 3))
    for channel in range(3):
        values = colour[:, channel]
        wanted = seam.T @ (values[seams[:, 1]] - values[seams[:, 0]])
        correction[:, channel], _ = cg(system, wanted, rtol=1e-4, maxiter=600, M=preconditioner)
    return np.clip(correction, -LARGEST, LARGEST)


def _copies(vertex: NDArray) -> NDArray:
    """Pairs (S, 2) of neighbouring copies of one vertex."""
    order = np.argsort(vertex, kind="stable")
    same = vertex[order][1:] == vertex[order][:-1]
    return np.stack([order[:-1][same], order[1:][same]], axis=1)


def _edges(faces: NDArray) -> NDArray:
    """The charts' edges (E, 2), each once."""
    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    unique: NDArray = np.unique(edges, axis=0)
    return unique


def _differences(pairs: NDArray, count: int) -> coo_matrix:
    """The sparse matrix (P, count) that takes values to x[first] - x[second]."""
    rows = np.arange(len(pairs))
    ones = np.ones(len(pairs))
    return coo_matrix(
        (
            np.concatenate([ones, -ones]),
            (np.concatenate([rows, rows]), np.concatenate([pairs[:, 0], pairs[:, 1]])),
        ),
        shape=(len(pairs), count),
    ).tocsr()
