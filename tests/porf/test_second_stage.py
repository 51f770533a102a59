"""The second stage: a finer surface around cameras that stay."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.formats.idr import load_idr_cameras
from pipeline.porf.config import TrainConfig
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.joint import JointTraining
from pipeline.porf.snapshot import write_snapshot
from pipeline.porf.trained import load_trained
from pipeline.porf.trainer import train
from tests.porf.tiny_case import TINY_OPTIONS, TinyCase, write_tiny_case

FIRST, SECOND = 20, 30
STEREO = {"depths": 24, "max_image_side": 48, "min_score": 0.2, "min_views": 1}
SURFACE = {"steps": SECOND, "resolutions": [8, 16, 24], "log2_entries": 12}


def options(mode: str, **changes: Any) -> TrainConfig:
    surface = {**SURFACE, "mode": mode, **changes}
    return TrainConfig.model_validate(
        {
            **TINY_OPTIONS,
            "steps": FIRST,
            "epipolar": {"pairs_per_step": 8},
            "stereo": STEREO,
            "look": {"max_image_side": 48, "fit_steps": 5},
            "surface": surface,
            "device": "cpu",
        }
    )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    return write_tiny_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(scope="module")
def both(tiny: TinyCase, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Results of the same training with and without the second stage."""
    folders = {}
    for mode in ("joint", "second_stage"):
        folders[mode] = tmp_path_factory.mktemp(mode)
        train(tiny.case, options(mode), folders[mode] / "out", folders[mode])
    return {mode: folder / "out" for mode, folder in folders.items()}


def test_the_cameras_are_those_of_the_first_stage(both: dict[str, Path], tiny: TinyCase) -> None:
    first, second = (load_idr_cameras(both[mode] / "cameras_refine_porf.npz") for mode in both)
    np.testing.assert_array_equal(first.c2w, second.c2w)
    assert np.abs(first.c2w - tiny.case.cameras.c2w).max() > 1e-4
    np.testing.assert_array_equal(*(load_trained(both[mode]).c2w for mode in both))


def test_the_surface_is_another_and_finer(both: dict[str, Path]) -> None:
    first, second = (load_trained(both[mode]).field for mode in both)
    assert isinstance(first, GridModel)
    assert isinstance(second, GridModel)
    assert first.config.resolutions == (8, 16)
    assert second.config.resolutions == (8, 16, 24)
    around = torch.nn.functional.normalize(torch.randn(200, 3, generator=_seeded()), dim=1)
    inside, outside = second.sdf(0.3 * around), second.sdf(0.9 * around)
    assert (inside < 0).float().mean() > 0.9
    assert (outside > 0).float().mean() > 0.9


def test_history_and_figures_go_on(both: dict[str, Path]) -> None:
    rows = {m: json.loads((both[m] / "history.json").read_text())["rows"] for m in both}
    assert rows["second_stage"][: len(rows["joint"])] == rows["joint"]
    assert [row[0] for row in rows["second_stage"]] == [10, 20, 30, 40, 50]
    figures = json.loads((both["second_stage"] / "train.json").read_text())["figures"]
    assert figures["steps"] == FIRST
    assert figures["second_stage_steps"] == SECOND


@pytest.mark.parametrize("changed", [{"steps": 10}, {"log2_entries": 8}])
def test_its_options_matter(
    changed: dict[str, Any], both: dict[str, Path], tiny: TinyCase, tmp_path: Path
) -> None:
    train(tiny.case, options("second_stage", **changed), tmp_path / "out", tmp_path)
    usual, other = (load_trained(p) for p in (both["second_stage"], tmp_path / "out"))
    points = 0.5 * torch.randn(50, 3, generator=_seeded())
    assert not torch.equal(usual.sdf(points), other.sdf(points))


def test_it_resumes_where_it_was_stopped(
    both: dict[str, Path], tiny: TinyCase, tmp_path: Path
) -> None:
    advance = JointTraining.advance

    def until(self: JointTraining) -> None:
        if self.config.steps == SECOND and self.step == 15:
            raise KeyboardInterrupt
        advance(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JointTraining, "advance", until)
        with pytest.raises(KeyboardInterrupt):
            train(tiny.case, options("second_stage"), tmp_path / "out", tmp_path)
    step = write_snapshot(tiny.case, options("second_stage"), tmp_path, tmp_path / "now", 0)
    assert step == FIRST + 10
    assert load_trained(tmp_path / "now").config.grid.resolutions == (8, 16, 24)
    train(tiny.case, options("second_stage"), tmp_path / "out", tmp_path)
    for file in ("history.json", "train.json", "cameras_refine_porf.npz"):
        assert (tmp_path / "out" / file).read_bytes() == (both["second_stage"] / file).read_bytes()
    ours, whole = (load_trained(p).field for p in (tmp_path / "out", both["second_stage"]))
    assert isinstance(ours, GridModel)
    assert isinstance(whole, GridModel)
    weights = whole.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in ours.state_dict().items())


def test_the_published_networks_have_one_too(tiny: TinyCase, tmp_path: Path) -> None:
    config = options("second_stage", steps=4).model_copy(update={"field": "neus", "steps": 4})
    result = train(tiny.case, config, tmp_path / "out", tmp_path)
    assert [row[0] for row in result.history] == [4, 8]


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)
