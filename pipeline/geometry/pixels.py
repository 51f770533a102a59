"""The one place where pixel conventions meet.

IDR, NeuS and PoRF put pixel centres at integer coordinates (the top-left pixel's centre is (0, 0));
COLMAP puts them at half-integers (the top-left pixel's centre is (0.5, 0.5)). Half a pixel is about
0.02° at the focal lengths in use, so it matters.
"""

import numpy as np
from numpy.typing import NDArray

HALF_PIXEL = 0.5


def colmap_to_idr_px(xy_px: NDArray) -> NDArray:
    """Pixel coordinates (..., 2) in COLMAP's convention to IDR's."""
    return np.asarray(xy_px) - HALF_PIXEL


def idr_to_colmap_px(xy_px: NDArray) -> NDArray:
    """Pixel coordinates (..., 2) in IDR's convention to COLMAP's."""
    return np.asarray(xy_px) + HALF_PIXEL


def colmap_to_idr_K(K_px: NDArray) -> NDArray:
    """Intrinsic matrices (..., 3, 3): the principal point moves by half a pixel."""
    return _shift_principal_point(K_px, -HALF_PIXEL)


def idr_to_colmap_K(K_px: NDArray) -> NDArray:
    """Intrinsic matrices (..., 3, 3): the inverse of `colmap_to_idr_K`."""
    return _shift_principal_point(K_px, HALF_PIXEL)


def _shift_principal_point(K_px: NDArray, by_px: float) -> NDArray:
    shifted = np.array(K_px, dtype=np.float64)
    shifted[..., :2, 2] += by_px
    return shifted
