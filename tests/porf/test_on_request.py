"""TensorBoard, compiled rendering, cheaper matrix products: off by default, on where asked for."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from pipeline.errors import InputError
from pipeline.porf import hash_grid
from pipeline.porf.acceleration import compile_rendering, matrix_precision
from pipeline.porf.config import GridConfig, NeusConfig, TrainConfig
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.neus_model import NeusModel
from pipeline.porf.rays import RayBatch
from pipeline.porf.trainer import train
from pipeline.progress import NullProgress
from tests.porf.tiny_case import TINY_OPTIONS, TinyCase, write_tiny_case


class Said(NullProgress):
    """Remembers notes and the figures of the progress line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.figures: dict[str, float] = {}

    def note(self, text: str) -> None:
        self.lines.append(text)

    def advance(self, phase: str, done: int, total: int, **figures: float) -> None:
        if phase == "joint":
            self.figures = figures


def options(**changes: Any) -> TrainConfig:
    grid = {**TINY_OPTIONS["grid"], "anchor_steps": 0, "anchor_weight": 0}
    quick = {"steps": 20, "device": "cpu", "epipolar": {"bundle_adjust": False}, "grid": grid}
    return TrainConfig.model_validate({**TINY_OPTIONS, **quick, **changes})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    return write_tiny_case(tmp_path_factory.mktemp("case"))


def test_curves_and_pictures_for_tensorboard(tiny: TinyCase, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # noqa: PLC0415
        EventAccumulator,
    )

    said = Said()
    train(tiny.case, options(tensorboard=True), tmp_path / "out", tmp_path / "work", 0, said)
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("loss")] == [10, 20]
    assert {"psnr_db", "heldout_epipolar_px", "steps_per_second"} <= set(events.Tags()["scalars"])
    assert set(events.Tags()["images"]) == {"photo", "render", "normal"}
    assert [event.step for event in events.Images("render")] == [10, 20]
    picture = events.Images("render")[0]
    assert (picture.width, picture.height) == (tiny.case.width, tiny.case.height)
    assert set(said.figures) == {
        *("loss", "color", "epipolar", "psnr", "heldout_px", "moved_deg", "steps_per_s")
    }


def test_without_the_package_it_is_refused_and_without_the_option_not_needed(
    tiny: TinyCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="needs the package tensorboard"):
        train(tiny.case, options(steps=1, tensorboard=True), tmp_path / "a", tmp_path / "wa")
    train(tiny.case, options(steps=1), tmp_path / "b", tmp_path / "wb")
    assert not (tmp_path / "b" / "tensorboard").exists()


def test_tensorboard_and_compile_do_not_identify_a_result() -> None:
    asked = options(tensorboard=True, compile=True)
    assert asked.key_options() == options().key_options()
    assert options(mixed_precision="tf32").key_options() != options().key_options()


def test_a_cpu_leaves_them_out_aloud(tiny: TinyCase, tmp_path: Path) -> None:
    said = Said()
    config = options(steps=1, compile=True, mixed_precision="bf16")
    result = train(tiny.case, config, tmp_path / "out", tmp_path / "work", 0, said)
    for name in ("compile", "mixed_precision"):
        assert f"train.{name} is off: there is no CUDA device" in said.lines
        assert "no CUDA device" in result.verdict.settings[name]


@pytest.mark.parametrize(("wanted", "set_to"), [("tf32", "high"), ("bf16", "medium")])
def test_precision_of_matrix_products(wanted: str, set_to: str) -> None:
    config = options(mixed_precision=wanted)
    with matrix_precision(config, torch.device("cuda")):
        assert torch.get_float32_matmul_precision() == set_to
    assert torch.get_float32_matmul_precision() == "highest"
    with matrix_precision(config, torch.device("cpu")):
        assert torch.get_float32_matmul_precision() == "highest"


def _a_ball(field: str) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(1)
    if field == "neus":
        return NeusModel(NeusConfig.model_validate(TINY_OPTIONS["neus"]), generator)
    grid = {**TINY_OPTIONS["grid"], "anchor_weight": 0}
    model = GridModel(GridConfig.model_validate(grid), generator)
    model.begin_step(0, 10)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("field", ["neus", "grid"])
def test_compiled_rendering_is_the_same_rendering(
    monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """Captured as on a GPU, run without generating code; and enough of it is captured."""
    monkeypatch.setattr(hash_grid, "serves", lambda tensor: False)
    model = _a_ball(field)
    origins = torch.tensor([[0.0, 0, -3]]).repeat(12, 1)
    directions = torch.nn.functional.normalize(
        torch.randn(12, 3, generator=torch.Generator().manual_seed(2)) * 0.1
        + torch.tensor([0.0, 0, 1]),
        dim=1,
    )
    rays = RayBatch(origins, directions)

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        out = model.render(rays, None)
        (out.color.sum() + out.regularisers["eikonal"]).backward()
        found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        assert len(found) > 10
        return [out.color.detach(), *found]

    plain = gradients()
    captured = CompileCounterWithBackend("aot_eager")
    compile_rendering(model, backend=captured)
    for ours, expected in zip(gradients(), plain, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-6)
    assert captured.op_count > 200
