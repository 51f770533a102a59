"""A training that was cut off anywhere and goes on is the training that was not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.formats.case import Case
from pipeline.porf import trainer
from pipeline.porf.artifacts import TrainResult
from pipeline.porf.checkpoint import load_plain
from pipeline.porf.config import TrainConfig
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.joint import JointTraining
from pipeline.porf.trainer import train
from tests.porf.test_training_memory import little_memory
from tests.porf.tiny_case import TINY_OPTIONS, TinyCase, write_tiny_case

STEPS, SECOND = 10, 4
PHASES = {"grid": ("refine_by_epipolar", "give_first_shape"), "neus": ("refine_by_epipolar",)}
"""Before the steps, by field."""
STEREO = {"depths": 24, "max_image_side": 48, "min_score": 0.2, "min_views": 1}


class CutOff(BaseException):
    """Like a kill: nothing that handles errors sees it, and nothing is saved."""


def options(**changes: Any) -> TrainConfig:
    """Every part of a training, in a few steps: adjustment, epipolar phase, stereo, looks, both
    stages, cameras that move after step 3 and settle at step 8."""
    base = {
        **TINY_OPTIONS,
        "steps": STEPS,
        "rays": 48,
        "checkpoint_every": 1,
        "log_every": 2,
        "epipolar": {"steps": 10, "pairs_per_step": 8},
        "stereo": STEREO,
        "look": {"max_image_side": 48, "fit_steps": 3, "shares": [0.0, 0.5]},
        "pose": {"joint_start": 0.3, "settle_share": 0.2},
        "device": "cpu",
    }
    return TrainConfig.model_validate({**base, **changes})


def two_stages() -> TrainConfig:
    surface = {"steps": SECOND, "resolutions": [8, 16, 24], "log2_entries": 12}
    return options(surface={**surface, "mode": "second_stage"})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    return write_tiny_case(tmp_path_factory.mktemp("case"))


@pytest.fixture(
    params=[pytest.param(1, id="one thread"), pytest.param(2, id="two", marks=pytest.mark.slow)]
)
def threads(request: pytest.FixtureRequest) -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def cut_off_in_turn(
    case: Case, config: TrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[TrainResult, int]:
    """Train, cut off again and again: in phases before the steps, then after every single step.

    Returns:
        The result, and how often the training was cut off.
    """
    work, cuts = folder / "work", 0
    for phase in PHASES[config.field]:
        with monkeypatch.context() as patch:
            patch.setattr(trainer, phase, _cut_off)
            with pytest.raises(CutOff):
                train(case, config, folder / "out", work)
            cuts += 1
    advance = JointTraining.advance
    while True:
        begun: list[int] = []

        def once(self: JointTraining, begun: list[int] = begun) -> None:
            if begun and self.step > 0:  # a stage's first step is not yet in a checkpoint
                raise CutOff
            begun.append(self.step)
            advance(self)

        with monkeypatch.context() as patch:
            patch.setattr(JointTraining, "advance", once)
            try:
                return train(case, config, folder / "out", work), cuts
            except CutOff:
                cuts += 1


def _cut_off(*_: Any) -> None:
    raise CutOff


@pytest.mark.parametrize("field", ["grid", "neus"])
def test_cut_off_after_every_step_it_ends_the_same(
    tiny: TinyCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int, field: str
) -> None:
    config = two_stages().model_copy(update={"field": field})
    whole = train(tiny.case, config, tmp_path / "whole", tmp_path / "work_whole")
    parts, cuts = cut_off_in_turn(tiny.case, config, tmp_path, monkeypatch)
    assert cuts == len(PHASES[field]) + STEPS + SECOND - 2
    assert [c.name for c in parts.candidates] == [c.name for c in whole.candidates]
    if threads == 1:
        assert parts.history == whole.history
        np.testing.assert_array_equal(parts.cameras.c2w, whole.cameras.c2w)
        ours, theirs = (load_plain(tmp_path / n / "model.pt")["field"] for n in ("out", "whole"))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    else:
        np.testing.assert_allclose(parts.history, whole.history, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(parts.cameras.c2w, whole.cameras.c2w, atol=1e-4)


@pytest.mark.parametrize(("field", "rays", "left"), [("grid", 20, 12), ("neus", 5, 4)])
def test_a_smaller_chunk_is_kept(
    tiny: TinyCase,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    field: str,
    rays: int,
    left: int,
) -> None:
    """Memory runs out at step 2; where it goes on there is plenty, and the result is the same."""
    config = options(field=field, steps=6, checkpoint_every=4)
    advance = JointTraining.advance

    def training(folder: Path, last: int) -> TrainResult:
        def short_of_memory(self: JointTraining) -> None:
            if self.step == last:
                raise CutOff
            with monkeypatch.context() as patch:
                if self.step == 2:
                    little_memory(patch, rays, torch.OutOfMemoryError())
                advance(self)

        with monkeypatch.context() as patch:
            patch.setattr(JointTraining, "advance", short_of_memory)
            return train(tiny.case, config, folder / "out", folder / "work")

    whole = training(tmp_path / "whole", last=-1)
    with pytest.raises(CutOff):
        training(tmp_path / "parts", last=5)
    parts = train(tiny.case, config, tmp_path / "parts" / "out", tmp_path / "parts" / "work")
    assert parts.history == whole.history
    for result in (whole, parts):
        told = result.verdict.settings
        assert (told["chunk_rays"], told["memory_ran_out_at_step"]) == (left, 2)


def test_the_second_stage_begins_with_the_smaller_chunk(
    tiny: TinyCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    advance, seen = JointTraining.advance, []

    def short_of_memory(self: JointTraining) -> None:
        with monkeypatch.context() as patch:
            if self.config.steps == STEPS and self.step == 0:
                little_memory(patch, 30, torch.OutOfMemoryError())
            advance(self)
        assert isinstance(self.field, GridModel)
        seen.append(self.chunk_rays)

    monkeypatch.setattr(JointTraining, "advance", short_of_memory)
    result = train(tiny.case, two_stages(), tmp_path / "out", tmp_path / "work")
    assert seen == [24] * (STEPS + SECOND)
    assert result.verdict.settings["chunk_rays"] == 24
