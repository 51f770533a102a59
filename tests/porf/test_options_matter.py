"""Every option of first cameras, first surface and fast field changes what is trained."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.porf.closer_look import look_closer
from pipeline.porf.config import LookConfig, StereoConfig, TrainConfig
from pipeline.porf.depth_maps import confirmed
from pipeline.porf.stereo import sweep
from pipeline.porf.stereo_views import StereoViews, stereo_views
from pipeline.porf.trainer import train
from pipeline.progress import NullProgress
from tests.porf.tiny_case import TINY_OPTIONS, TinyCase, write_tiny_case

STEREO = StereoConfig(depths=24, max_image_side=48, min_score=0.2, min_views=1, consistency=0.05)

LOOK = LookConfig(shares=(0.0, 0.5), fit_steps=2, max_image_side=48, reach=0.2, min_score=0.2)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    return write_tiny_case(tmp_path_factory.mktemp("case"))


def _losses(tiny: TinyCase, folder: Path, section: str, changed: dict[str, Any]) -> list[float]:
    base: dict[str, Any] = {**TINY_OPTIONS, "steps": 6, "log_every": 3, "rays": 48, "device": "cpu"}
    base["epipolar"] = {"bundle_adjust": True, "pairs_per_step": 4}
    base["stereo"] = STEREO.model_dump()
    base["look"] = LOOK.model_dump()
    base["grid"] = {**base["grid"], "anchor_steps": 2, "foreground_samples": 0}
    base[section] = {**base[section], **changed}
    result = train(tiny.case, TrainConfig.model_validate(base), folder / "out", folder / "work")
    return [row[1] for row in result.history]


@pytest.fixture(scope="module")
def usual(tiny: TinyCase, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    return _losses(tiny, tmp_path_factory.mktemp("usual"), "grid", {})


@pytest.mark.parametrize(
    ("section", "changed"),
    [
        ("grid", {"roughness_weight": 0.5}),
        ("grid", {"roughness_reach": 0.2}),
        ("grid", {"anchor_weight": 0.0}),
        ("grid", {"anchor_end": 0.2}),
        ("grid", {"anchor_steps": 4}),
        ("grid", {"foreground_samples": 2}),
        ("grid", {"coarse_share": 1.0, "resolutions": [4, 8, 16]}),
        ("grid", {"view_start": 1.0}),
        ("epipolar", {"bundle_adjust": False}),
        ("stereo", {"views": 0}),
        ("stereo", {"views": 4}),
        ("look", {"shares": []}),
        ("look", {"shares": [0.0]}),
        ("look", {"fit_steps": 4}),
    ],
)
def test_training_feels_it(
    tiny: TinyCase, tmp_path: Path, usual: list[float], section: str, changed: dict[str, Any]
) -> None:
    assert _losses(tiny, tmp_path, section, changed) != usual


def _views(tiny: TinyCase) -> StereoViews:
    images = torch.from_numpy(tiny.case.load_images())
    cameras = tiny.case.cameras
    return stereo_views(
        images,
        torch.from_numpy(cameras.K).float(),
        torch.from_numpy(cameras.c2w_normalised).float(),
        STEREO.max_image_side,
    )


@pytest.mark.parametrize(
    "changed", [{"neighbours": 1}, {"depths": 12}, {"window": 3}, {"smoothness": 0.0}]
)
def test_the_sweep_feels_it(tiny: TinyCase, changed: dict[str, Any]) -> None:
    views = _views(tiny)
    usual = sweep(views, STEREO, NullProgress())
    other = sweep(views, STEREO.model_copy(update=changed), NullProgress())
    assert any(not torch.equal(a, b) for a, b in zip(usual.depth, other.depth, strict=True))


@pytest.mark.parametrize("changed", [{"min_score": 0.9}, {"min_views": 2}, {"consistency": 0.001}])
def test_stricter_stereo_keeps_less(tiny: TinyCase, changed: dict[str, Any]) -> None:
    views = _views(tiny)
    maps = sweep(views, STEREO, NullProgress())
    usual = sum(int(kept.sum()) for kept in confirmed(views, maps, STEREO))
    stricter = STEREO.model_copy(update=changed)
    assert 0 <= sum(int(kept.sum()) for kept in confirmed(views, maps, stricter)) < usual


def _look(tiny: TinyCase, changed: dict[str, Any]) -> tuple[list[Tensor], int]:
    """Depths around a ball, and how many pixels are trusted."""
    options = LOOK.model_copy(update=changed)
    axis = torch.linspace(-1, 1, 24)
    ball = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0) - 0.5
    maps, trusted = look_closer(ball[None, None], _views(tiny), STEREO, options, NullProgress())
    return maps.depth, sum(int(pixels.sum()) for pixels in trusted)


@pytest.mark.parametrize("changed", [{"reach": 0.1}, {"depths": 15}])
def test_the_look_feels_it(tiny: TinyCase, changed: dict[str, Any]) -> None:
    usual, other = _look(tiny, {})[0], _look(tiny, changed)[0]
    assert any(not torch.equal(a, b) for a, b in zip(usual, other, strict=True))


@pytest.mark.parametrize("changed", [{"min_score": 0.9}, {"min_views": 2}, {"consistency": 1e-4}])
def test_a_stricter_look_keeps_less(tiny: TinyCase, changed: dict[str, Any]) -> None:
    assert 0 <= _look(tiny, changed)[1] < _look(tiny, {})[1]


def test_an_even_window_is_refused() -> None:
    with pytest.raises(ValueError, match="odd"):
        StereoConfig(window=4)
