"""Correlation of windows: the compiled kernel, torch, and a plain computation agree."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from pipeline.porf import correlation
from pipeline.porf.correlation import correlations
from pipeline.porf.correlation_kernels import FLAT, UNKNOWN, WIDE_FLAT, WIDER
from pipeline.porf.stereo_views import StereoViews

SIZE = (40, 52)
WINDOW = 5


def texture(seed: int, contrast: float) -> torch.Tensor:
    noise = torch.rand(1, 1, 12, 15, generator=torch.Generator().manual_seed(seed))
    return 0.5 + contrast * F.interpolate(noise, SIZE, mode="bicubic")


@pytest.fixture(scope="module")
def views() -> StereoViews:
    """Three cameras side by side before a wall at depth 2; half of it has almost no texture."""
    wall = texture(0, 0.4)
    wall[..., 26:] = texture(1, 0.02)[..., 26:]
    K = torch.tensor([[50.0, 0.0, 26.0], [0.0, 50.0, 20.0], [0.0, 0.0, 1.0]])
    grey, c2w = [], []
    for shift_px in (0, 3, -4):
        grey.append(torch.roll(wall, shift_px, dims=3))
        pose = torch.eye(4)
        pose[0, 3] = -shift_px * 2.0 / 50.0
        c2w.append(pose)
    return StereoViews(torch.cat(grey), K.expand(3, 3, 3), torch.stack(c2w))


def inverse_depths(views: StereoViews) -> torch.Tensor:
    """Along unit rays, such that the wall lies at the third of five."""
    unit_z = views.directions(0)[..., 2]
    return unit_z / torch.tensor([1.6, 1.8, 2.0, 2.2, 2.4])[:, None, None]


def both(views: StereoViews, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    compiled = correlations(views, 0, [1, 2], inverse_depths(views), WINDOW)
    with monkeypatch.context() as patch:
        patch.setattr(correlation, "_compiled", correlation._in_torch)
        return [compiled, correlations(views, 0, [1, 2], inverse_depths(views), WINDOW)]


def test_the_wall_is_found(views: StereoViews) -> None:
    scores = correlations(views, 0, [1, 2], inverse_depths(views), WINDOW).view(5, *SIZE)
    inner = scores[:, 12:-12, 12:-12]
    assert (inner[2] > 0.99).all()
    assert (inner.argmax(dim=0) == 2).all()


def test_kernel_and_torch_agree(views: StereoViews, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, in_torch = both(views, monkeypatch)
    agree = (compiled - in_torch).abs() < 2e-3  # except where rounding decides what is flat
    assert agree.float().mean() > 0.999


def test_scores_are_those_of_a_plain_computation(views: StereoViews) -> None:
    """At the wall's depth a neighbour is the photo shifted by whole pixels."""
    grey = views.grey.double().numpy()[:, 0]
    scores = correlations(views, 0, [1], inverse_depths(views)[2:3], WINDOW).view(SIZE)
    for row, column in ((20, 14), (18, 36), (9, 22), (25, 33)):
        expected = UNKNOWN
        for size, flat in ((WINDOW, FLAT), (WIDER * WINDOW, WIDE_FLAT)):
            reach = size // 2
            here, there = (
                grey[view, row - reach : row + reach + 1, x - reach : x + reach + 1].ravel()
                for view, x in ((0, column), (1, column + 3))
            )
            if here.var() > flat and there.var() > flat:
                expected = np.corrcoef(here, there)[0, 1]
                break
        assert float(scores[row, column]) == pytest.approx(expected, abs=1e-3)


def test_a_part_is_the_part_of_the_whole(views: StereoViews) -> None:
    """Away from the part's border, beyond which windows continue it."""
    whole = correlations(views, 0, [1, 2], inverse_depths(views), WINDOW).view(5, *SIZE)
    rows, columns = slice(4, 36), slice(5, 47)
    inverse = inverse_depths(views)[:, rows, columns]
    part = correlations(views, 0, [1, 2], inverse, WINDOW, (rows, columns)).view(5, 32, 42)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    torch.testing.assert_close(part[inner], whole[:, rows, columns][inner], atol=1e-4, rtol=0)


def test_what_no_neighbour_sees_is_unknown(views: StereoViews) -> None:
    behind = StereoViews(views.grey, views.K, views.c2w.clone())
    behind.c2w[1:, :3, :3] = torch.diag(torch.tensor([-1.0, 1.0, -1.0]))  # look the other way
    assert (correlations(behind, 0, [1, 2], inverse_depths(views), WINDOW) == UNKNOWN).all()
