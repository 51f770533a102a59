"""A training step never makes the host wait for the device, nor loops over views in Python.

Shown without a GPU: every operation of a step is watched, in the code that a GPU runs. Operations
whose result the host reads (a number, a size that hangs on values) and tensors made of the host's
numbers would wait. What is drawn on the host on purpose, by its own generator, is left out.
"""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from pipeline.porf import hash_grid, joint
from pipeline.porf.config import TrainConfig
from pipeline.porf.epipolar import MatchTable
from pipeline.porf.gate import with_heldout_marks
from pipeline.porf.joint import JointTraining
from pipeline.porf.models import build_field, build_poses
from pipeline.porf.observations import load_observations
from pipeline.progress import NullProgress
from tests.porf.tiny_case import TINY_OPTIONS, TinyCase, write_tiny_case

ON_THE_HOST = [
    (JointTraining, "_view_of_step"),
    (MatchTable, "sample_pairs_of_view"),
    (MatchTable, "sample_pairs"),
    (MatchTable, "select"),
]
WAITING = {
    "aten::_local_scalar_dense",  # .item(), .tolist(), int(), bool(), if
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_consecutive",
    "aten::equal",
    "aten::lift_fresh",  # torch.tensor(), new_tensor()
}


class Watch(TorchDispatchMode):
    """Counts operations and remembers those that would wait, with the line of ours that asked."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.operations += 1
        name = func._schema.name
        if name in WAITING or _hangs_on_values(name, args, kwargs or {}):
            self.waits.append(f"{name} at {_our_line()}")
        return func(*args, **(kwargs or {}))


def _hangs_on_values(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    """Selection by a mask, or repetition without its length."""
    if name in ("aten::index", "aten::index_put", "aten::index_put_"):
        return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])
    return name == "aten::repeat_interleave" and kwargs.get("output_size") is None


def _our_line() -> str:
    frame = sys._getframe()
    while frame.f_back and "/pipeline/" not in frame.f_code.co_filename:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def _unwatched(function: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            return function(*args, **kwargs)

    return call


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast field's torch version instead of its kernels; the host's own draws unwatched."""
    for module in (hash_grid, joint):
        monkeypatch.setattr(module, "serves", lambda tensor: False)
    for owner, name in ON_THE_HOST:
        monkeypatch.setattr(owner, name, _unwatched(getattr(owner, name)))


def _training(tiny: TinyCase, **options: Any) -> JointTraining:
    grid = {**TINY_OPTIONS["grid"], "anchor_steps": 0}
    base = {**TINY_OPTIONS, "device": "cpu", "grid": grid, "pose": {"joint_start": 0}}
    config = TrainConfig.model_validate({**base, **options})
    device = torch.device("cpu")
    observations = load_observations(tiny.case, config, 0, device, NullProgress())
    c2w = torch.from_numpy(tiny.case.cameras.c2w_normalised).float()
    K = torch.from_numpy(tiny.case.cameras.K).float()
    table = MatchTable.from_matches(with_heldout_marks(tiny.case.matches, 0))
    generator = torch.Generator().manual_seed(0)
    field, poses = build_field(config, generator, device), build_poses(config.pose, c2w, generator)
    return JointTraining(config, field, poses, observations, table, K, 1)


def _watched_step(training: JointTraining) -> Watch:
    """The second step: the first one fills what is kept for the others."""
    training.advance()
    with Watch() as watch:
        training.advance()
    return watch


ONE_VIEW = {"rays_from": "one_view", "epipolar": {"pairs_from": "one_view"}}


@pytest.mark.parametrize(
    ("masks", "options"),
    [
        (False, {}),
        (True, {}),
        (False, {"pose": {"joint_start": 0, "model": "learn_pose"}, **ONE_VIEW}),
        (False, {"field": "neus", **ONE_VIEW}),
        (True, {"field": "neus"}),
    ],
)
@pytest.mark.usefixtures("as_on_a_gpu")
def test_nothing_of_a_step_is_waited_for(
    tmp_path: Path, masks: bool, options: dict[str, Any]
) -> None:
    watch = _watched_step(_training(write_tiny_case(tmp_path / "case", masks=masks), **options))
    assert watch.operations > 100
    assert sorted(set(watch.waits)) == []


@pytest.mark.usefixtures("as_on_a_gpu")
def test_pieces_after_memory_ran_out_are_not_waited_for(tmp_path: Path) -> None:
    training = _training(write_tiny_case(tmp_path / "case"))
    training.limit_chunk(50, 0)
    assert _watched_step(training).waits == []


@pytest.mark.usefixtures("as_on_a_gpu")
def test_the_watch_sees_what_would_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = _training(write_tiny_case(tmp_path / "case"))
    epipolar = JointTraining._epipolar

    def asking(self: JointTraining, c2w: Tensor, view: int | None) -> Tensor:
        loss = epipolar(self, c2w, view)
        assert float(loss.detach()) == float(loss.detach())
        return loss[None][torch.tensor([True])][0]

    monkeypatch.setattr(JointTraining, "_epipolar", asking)
    found = {wait.split(" at ")[0] for wait in _watched_step(training).waits}
    assert {"aten::_local_scalar_dense", "aten::index", "aten::lift_fresh"} <= found


@pytest.mark.parametrize("field", ["grid", "neus"])
@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_steps_operations_do_not_grow_with_views_and_pairs(tmp_path: Path, field: str) -> None:
    operations = []
    for views in (6, 12):
        case = write_tiny_case(tmp_path / str(views), views=views)
        epipolar = {"pairs_per_step": views * (views - 1)}
        operations.append(_watched_step(_training(case, field=field, epipolar=epipolar)).operations)
    assert operations[0] == operations[1]
