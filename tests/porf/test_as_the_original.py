"""Where the defaults do otherwise than the original code, a named option brings its way back."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.settings import resolve
from pipeline.porf.config import TrainConfig
from pipeline.porf.joint import JointTraining
from pipeline.porf.models import field_schedule
from pipeline.porf.observations import Observations, load_observations
from pipeline.porf.schedule import warmup_cosine
from pipeline.porf.trainer import train
from pipeline.progress import NullProgress
from tests.conftest import REPOSITORY
from tests.porf.test_presets import REFERENCE, small, value
from tests.porf.tiny_case import HEIGHT, VIEWS, WIDTH, TinyCase, write_tiny_case


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    return write_tiny_case(tmp_path_factory.mktemp("case"), masks=True)


def test_every_option_that_the_guide_names_is_set_by_the_presets() -> None:
    """The table of docs/reference.md; what is not a stage's option is one of the command."""
    guide = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    table = guide.split("| default | the original | option |")[1].split("\n\n")[0]
    rows = table.strip().splitlines()[1:]
    assert len(rows) >= 10
    for row in rows:
        named = re.findall(r"`train\.([a-z_.]+)", row.rsplit("|", 2)[1])
        assert named or "porf train --no-resume" in row, row
        for option in named:
            for preset in REFERENCE:
                if option == "pose.zero_init" and preset.endswith("pose"):
                    continue  # six free numbers a view always begin at zero
                assert value(resolve(preset).train, option) != value(TrainConfig(), option), option


def _observed(case: TinyCase, **changes: Any) -> Observations:
    config = small("dtu_sift_porf", **changes)
    return load_observations(case.case, config, 0, torch.device("cpu"), NullProgress())


def test_masks_are_not_read(masked: TinyCase) -> None:
    assert _observed(masked).masks is None
    assert _observed(masked, use_masks=True).masks is not None


def test_pixels_come_from_all_of_a_view(masked: TinyCase) -> None:
    whole = torch.tensor([0, 0, WIDTH, HEIGHT])
    assert torch.equal(_observed(masked).box_px, whole.expand(VIEWS, 4))
    near = _observed(masked, rays_near_object=True).box_px
    assert bool((near[:, 2:].prod(1) < WIDTH * HEIGHT).all())


class _Watched:
    """Views, pose rates and whether cameras moved, step by step."""

    def __init__(self, case: TinyCase, folder: Path, config: TrainConfig) -> None:
        self.views: list[int] = []
        self.pose_rates: list[float] = []
        self.moved: list[bool] = []
        draw, advance = Observations.draw, JointTraining.advance

        def drawing(own: Observations, *arguments: Any) -> Any:
            batch = draw(own, *arguments)
            self.views.append(len(batch.view.unique()))
            return batch

        def advancing(own: JointTraining) -> None:
            before = own.current_c2w().clone()
            advance(own)
            self.moved.append(not torch.equal(before, own.current_c2w()))
            assert own.pose_optimiser is not None
            self.pose_rates.append(own.pose_optimiser.param_groups[0]["lr"])

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Observations, "draw", drawing)
            patch.setattr(JointTraining, "advance", advancing)
            self.result = train(case.case, config, folder / "out", folder / "work")


def test_one_view_a_step_and_cameras_that_move_at_one_rate_from_first_to_last(
    masked: TinyCase, tmp_path: Path
) -> None:
    original = _Watched(masked, tmp_path / "a", small("dtu_sift_porf"))
    assert original.views == [1] * 6
    assert original.moved == [True] * 6
    assert original.pose_rates == [5e-4] * 6
    assert [c.name for c in original.result.candidates] == ["input", "joint"]
    ours = {"schedule": "cosine", "joint_start": 0.5, "settle_share": 0.2}
    changes: dict[str, Any] = {"rays_from": "all_views", "pose": ours, "heldout_blocks": 0.1}
    changes["epipolar"] = {"bundle_adjust": True, "heldout_share": 0.1}
    default = _Watched(masked, tmp_path / "b", small("dtu_sift_porf", **changes))
    assert min(default.views) > 1
    assert default.moved == [False] * 3 + [True] * 2 + [False]
    assert max(default.pose_rates[3:]) < 5e-4
    assert [c.name for c in default.result.candidates] == ["input", "adjusted", "joint"]
    assert default.result.figures["psnr_heldout_db"] is not None


def test_the_fields_rate_is_the_originals() -> None:
    """Linear over 500 steps, then half a cosine from 5e-4 down to a twentieth of it."""
    warmup, final = field_schedule(resolve("dtu_sift_porf").train)
    steps = (0, 1, 250, 500, 25_250, 50_000)
    factors = [warmup_cosine(step, 50_000, warmup, final) for step in steps]
    assert factors == pytest.approx([0, 0.002, 0.5, 1, 0.525, 0.05])


@pytest.mark.parametrize("weight", [0.0, 0.001])
@pytest.mark.parametrize("preset", ["dtu_sift_porf", "mobilebrick_sift_pose"])
def test_with_and_without_distortion_loss(
    masked: TinyCase, tmp_path: Path, preset: str, weight: float
) -> None:
    losses = {}
    for name, changed in (("this", weight), ("much", 10.0)):
        config = small(preset, steps=2, log_every=1, neus={"distortion_weight": changed})
        result = train(masked.case, config, tmp_path / name, tmp_path / f"w_{name}")
        losses[name] = [row[1] for row in result.history]
    assert losses["this"][0] < losses["much"][0]
