"""Likeness of renders and photos."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from pipeline.errors import InputError

_SSIM_SIGMA = 1.5
_SSIM_RADIUS = 5
_SSIM_K1, _SSIM_K2 = 0.01, 0.03


def psnr_db(a: NDArray, b: NDArray, mask: NDArray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 images (h, w, 3), over all channels.

    Args:
        mask: (h, w) bool, pixels that count; all if None.

    Equal images give infinity.

    Raises:
        InputError: sizes differ, or the mask leaves no pixel.
    """
    _check(a, b)
    difference = (a.astype(np.float64) - b.astype(np.float64)) / 255.0
    if mask is not None:
        difference = difference[mask]
    if difference.size == 0:
        raise InputError("an image comparison needs at least one pixel, the mask leaves none")
    error = float(np.mean(difference**2))
    return float("inf") if error == 0 else -10.0 * float(np.log10(error))


def ssim(a: NDArray, b: NDArray) -> float:
    """Structural similarity in [-1, 1] of two uint8 images (h, w, 3), mean over all channels.

    Source: Wang et al., "Image quality assessment: from error visibility to structural
    similarity", TIP 2004: Gaussian window of 11 pixels, σ = 1.5, places where it fits whole.

    Raises:
        InputError: sizes differ, or an image is smaller than the window.
    """
    _check(a, b)
    window = 2 * _SSIM_RADIUS + 1
    if min(a.shape[:2]) < window:
        raise InputError(f"SSIM needs images of at least {window} pixels a side, got {a.shape[:2]}")
    x, y = a.astype(np.float64) / 255.0, b.astype(np.float64) / 255.0
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x = _blur(x * x) - mean_x**2
    variance_y = _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    quality = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    quality /= (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    inner = slice(_SSIM_RADIUS, -_SSIM_RADIUS)
    return float(quality[inner, inner].mean())


def _blur(image: NDArray) -> NDArray:
    blurred: NDArray = gaussian_filter(image, _SSIM_SIGMA, radius=_SSIM_RADIUS, axes=(0, 1))
    return blurred


def _check(a: NDArray, b: NDArray) -> None:
    if a.shape != b.shape:
        raise InputError(f"images of one size are needed, got {a.shape} and {b.shape}")
