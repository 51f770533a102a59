"""SO(3) maps and pose models."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from pipeline.errors import InputError
from pipeline.porf.poses import POSE_MODES, LearnPose, PoRF, PoseField
from pipeline.porf.so3 import so3_exp, so3_log

ANGLES = [0.0, 1e-12, 1e-7, 1e-4, 9.9e-3, 1.01e-2, 0.5, 2.0, math.pi - 1e-3, math.pi - 1e-7]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotvecs(angle: float, count: int = 50) -> Tensor:
    axes = torch.randn(count, 3, generator=seeded(0), dtype=torch.float64)
    return angle * torch.nn.functional.normalize(axes, dim=1)


def random_poses(views: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    """(views, 4, 4) proper poses with angles up to half a turn."""
    generator = seeded(seed)
    rotation = Rotation.random(views, rng=seed).as_matrix()
    c2w = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    c2w[:, :3, :3] = torch.from_numpy(rotation)
    c2w[:, :3, 3] = 3 * torch.randn(views, 3, generator=generator, dtype=torch.float64)
    return c2w.to(dtype)


@pytest.mark.parametrize("angle", ANGLES)
def test_exp_and_log_agree_with_scipy(angle: float) -> None:
    r = rotvecs(angle)
    expected = torch.from_numpy(Rotation.from_rotvec(r.numpy()).as_matrix())
    torch.testing.assert_close(so3_exp(r), expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(so3_log(expected), r, rtol=0, atol=1e-12)


def test_log_at_exactly_half_a_turn_gives_the_rotation_back() -> None:
    rotation = so3_exp(rotvecs(math.pi))
    torch.testing.assert_close(so3_exp(so3_log(rotation)), rotation, rtol=0, atol=1e-13)
    about_axes = torch.stack([torch.diag(torch.tensor(d)) for d in ([1.0, -1, -1], [-1, 1, -1])])
    assert torch.equal(so3_log(about_axes).norm(dim=1), torch.full((2,), math.pi))


@pytest.mark.parametrize("angle", ANGLES)
def test_gradients_of_the_maps_are_right_everywhere(angle: float) -> None:
    r = rotvecs(angle, count=4).requires_grad_()
    assert torch.autograd.gradcheck(so3_exp, (r,))
    (gradient,) = torch.autograd.grad(so3_log(so3_exp(r)).sum(), r)
    torch.testing.assert_close(gradient, torch.ones_like(gradient), rtol=0, atol=1e-5)


def test_exp_in_float32_is_a_rotation_to_rounding() -> None:
    for angle in ANGLES:
        rotation = so3_exp(rotvecs(angle).float())
        product = rotation @ rotation.transpose(1, 2)
        assert float((product - torch.eye(3)).abs().max()) < 1e-6


@pytest.mark.parametrize("mode", POSE_MODES)
def test_refinement_starts_at_the_given_poses(mode: str) -> None:
    c2w = random_poses(9)
    for field in (PoRF(c2w, mode), LearnPose(c2w)):
        assert torch.equal(field.residual(), torch.zeros(9, 6))
        torch.testing.assert_close(field(), c2w, rtol=0, atol=1e-6)


def test_the_originals_start_is_an_option() -> None:
    c2w = random_poses(9)
    moved = PoRF(c2w, zero_init=False, generator=seeded(3)).residual().detach()
    assert 1e-5 < float(moved.abs().max()) < 1e-2


def test_one_view_equals_its_row_of_all_views() -> None:
    c2w = random_poses(7)
    learn = LearnPose(c2w)
    with torch.no_grad():
        learn.r.normal_(generator=seeded(4))
        learn.t.normal_(generator=seeded(5))
    for field in (PoRF(c2w, zero_init=False, generator=seeded(6)), learn):
        every = field()
        some = torch.tensor([[5, 2], [0, 5]])
        torch.testing.assert_close(field(some), every[some])
        torch.testing.assert_close(field(torch.tensor(3)), every[3])


def test_what_each_mode_sees() -> None:
    """The index alone, the pose alone, or both: changing the unseen one changes nothing."""

    def residual(mode: str, c2w: Tensor) -> Tensor:
        return PoRF(c2w, mode, zero_init=False, generator=seeded(7)).residual()

    c2w, other = random_poses(6, seed=1), random_poses(6, seed=2)
    twice = c2w[[0, 0, 1, 1, 2, 2]]
    assert torch.equal(residual("index_only", c2w), residual("index_only", other))
    assert not torch.equal(residual("porf", c2w), residual("porf", other))
    for mode, same in (("pose_only", True), ("porf", False), ("index_only", False)):
        found = residual(mode, twice)
        assert torch.allclose(found[0::2], found[1::2], atol=1e-8) == same, mode


def test_the_network_input_is_the_originals() -> None:
    c2w = random_poses(4)
    inputs = PoRF(c2w).network_input
    assert torch.equal(inputs[:, 0], torch.tensor([-1.0, -0.5, 0.0, 0.5]))
    torch.testing.assert_close(so3_exp(inputs[:, 1:4]), c2w[:, :3, :3], rtol=0, atol=1e-6)
    assert torch.equal(inputs[:, 4:], c2w[:, :3, 3])


def test_pose_gradients_reach_every_parameter_and_no_given_pose() -> None:
    c2w = random_poses(5)
    models: list[PoseField] = [PoRF(c2w, zero_init=False, generator=seeded(8)), LearnPose(c2w)]
    for field in models:
        field().square().sum().backward()
        gradients = [parameter.grad for parameter in field.parameters()]
        assert all(g is not None and torch.isfinite(g).all() and g.any() for g in gradients)
        assert not any(buffer.requires_grad for buffer in field.buffers())


def test_same_generator_same_weights_and_state_round_trip() -> None:
    c2w = random_poses(5)
    first, second = (PoRF(c2w, zero_init=False, generator=seeded(9)) for _ in range(2))
    assert torch.equal(first(), second())
    third = PoRF(random_poses(5, seed=3), zero_init=False)
    third.load_state_dict(first.state_dict())
    assert torch.equal(third(), first())


@pytest.mark.parametrize(
    ("poses", "said"),
    [
        (torch.eye(4), "shape"),
        (torch.zeros(0, 4, 4), "shape"),
        (2 * torch.eye(4).repeat(3, 1, 1), r"\[0, 1, 2\]"),
        (torch.diag(torch.tensor([1.0, 1, -1, 1]))[None], "proper"),
        (torch.full((1, 4, 4), torch.nan), "proper"),
    ],
)
def test_poses_that_are_none_are_refused(poses: Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        PoRF(poses)


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="porf, index_only, pose_only"):
        PoRF(random_poses(2), "pose")  # type: ignore[arg-type]
