import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.metrics.images import psnr_db, ssim


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 200, (8, 10, 3))
    return np.kron(coarse, np.ones((4, 4, 1))).astype(np.uint8)


def test_psnr_of_a_known_difference(picture):
    assert psnr_db(picture, picture) == float("inf")
    off_by_ten = picture + np.uint8(10)
    assert psnr_db(picture, off_by_ten) == pytest.approx(20 * np.log10(255 / 10))
    assert psnr_db(off_by_ten, picture) == psnr_db(picture, off_by_ten), "no wrap-around of uint8"


def test_psnr_within_a_mask(picture):
    spoilt = picture.copy()
    spoilt[:4] = 0
    mask = np.ones(picture.shape[:2], dtype=bool)
    mask[:4] = False
    assert psnr_db(picture, spoilt, mask) == float("inf")
    with pytest.raises(InputError, match="no"):
        psnr_db(picture, spoilt, np.zeros_like(mask))


def test_ssim_by_hand_at_one_window(picture):
    """An image as large as the window has one place: the textbook formula written out."""
    rng = np.random.default_rng(1)
    a = rng.integers(0, 256, (11, 11, 3)).astype(np.uint8)
    b = np.clip(a + rng.normal(0, 30, a.shape), 0, 255).astype(np.uint8)
    offsets = np.arange(-5, 6)
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    values = []
    for c in range(3):
        x, y = a[..., c] / 255, b[..., c] / 255
        mx, my = (weights * x).sum(), (weights * y).sum()
        vx, vy = (weights * (x - mx) ** 2).sum(), (weights * (y - my) ** 2).sum()
        cov = (weights * (x - mx) * (y - my)).sum()
        values.append(
            (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4))
        )
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-9)


def test_ssim_orders_images_as_eyes_do(picture):
    rng = np.random.default_rng(0)
    noisy = np.clip(picture + rng.normal(0, 10, picture.shape), 0, 255).astype(np.uint8)
    noisier = np.clip(picture + rng.normal(0, 40, picture.shape), 0, 255).astype(np.uint8)
    assert ssim(picture, picture) == pytest.approx(1)
    assert 1 > ssim(picture, noisy) > ssim(picture, noisier) > ssim(picture, 255 - picture)


def test_unequal_or_tiny_images_are_refused(picture):
    with pytest.raises(InputError, match="one size"):
        psnr_db(picture, picture[:-1])
    with pytest.raises(InputError, match="11 pixels"):
        ssim(picture[:10], picture[:10])
