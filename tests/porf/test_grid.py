"""The fast field: grid interpolation, analytic normals, background and rendering."""

import pytest
import torch

from pipeline.porf import hash_grid
from pipeline.porf.background import VolumeBackground
from pipeline.porf.config import GridConfig
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.grid import GridSurface
from pipeline.porf.hash_grid import HashGrid
from pipeline.porf.rays import RayBatch, unit_sphere_interval
from tests.porf.tiny_case import TINY_OPTIONS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_grid(log2_entries: int = 8) -> HashGrid:
    grid = HashGrid((5, 9, 12), 2, log2_entries, seeded())
    torch.nn.init.normal_(grid.table, generator=seeded(1))
    return grid


def some_points(count: int = 200, extent: float = 1.2) -> torch.Tensor:
    return (torch.rand(count, 3, generator=seeded(2)) * 2 - 1) * extent


def test_compiled_kernels_equal_the_torch_version() -> None:
    grid, x = small_grid(), some_points()
    value, jacobian = grid.with_jacobian(x)
    expected = hash_grid._torch_interpolate(grid.table, x, grid.shape, True)
    torch.testing.assert_close(value, expected[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(jacobian, expected[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(grid(x), value, atol=1e-5, rtol=1e-5)
    for with_jacobian in (True, False):
        by_jacobian = torch.randn(jacobian.shape, generator=seeded(3)) if with_jacobian else None
        by_value = torch.randn(value.shape, generator=seeded(4))
        compiled, plain = torch.zeros_like(grid.table), torch.zeros_like(grid.table)
        hash_grid._compiled_scatter(x, grid.shape, by_value, by_jacobian, compiled)
        hash_grid._torch_scatter(x, grid.shape, by_value, by_jacobian, plain)
        torch.testing.assert_close(compiled, plain, atol=1e-3, rtol=1e-4)


def test_interpolation_gradients_in_double_precision() -> None:
    grid = small_grid().double()
    x = some_points(12, extent=0.95).double().requires_grad_()

    def features(table: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(grid, {"table": table}, (points,))

    assert torch.autograd.gradcheck(features, (grid.table, x))
    value, jacobian = grid.with_jacobian(x)
    for c in range(value.shape[1]):
        (by_autograd,) = torch.autograd.grad(value[:, c].sum(), x, retain_graph=True)
        torch.testing.assert_close(jacobian[:, :, c].t(), by_autograd)


def test_grid_reproduces_linear_functions_and_continues_its_border() -> None:
    grid = HashGrid((9,), 1, 12, seeded())
    axis = torch.linspace(-1, 1, 9)
    vertices = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    slope = torch.tensor([0.5, -2.0, 3.0])
    with torch.no_grad():
        grid.table.copy_((vertices @ slope)[:, None])
    x = some_points(300)
    torch.testing.assert_close(grid(x)[:, 0], x.clamp(-1, 1) @ slope, atol=1e-5, rtol=1e-5)


def test_inactive_levels_are_zero() -> None:
    grid = small_grid()
    features = grid(some_points(), active_levels=2)
    assert features[:, 4:].abs().max() == 0
    assert features[:, :4].abs().min() > 0


def test_surface_normals_are_the_gradient_of_the_distance() -> None:
    config = GridConfig.model_validate(TINY_OPTIONS["grid"])
    surface = GridSurface(config, seeded())
    torch.nn.init.normal_(surface.grid.table, std=0.1, generator=seeded(5))
    x = some_points(64, extent=0.9).requires_grad_()
    sdf, gradient, _ = surface(x)
    (by_autograd,) = torch.autograd.grad(sdf.sum(), x)
    torch.testing.assert_close(gradient, by_autograd, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(surface.sdf(x), sdf, atol=1e-5, rtol=1e-5)


def test_first_surface_is_about_a_sphere() -> None:
    surface = GridSurface(GridConfig(hidden_width=64, initial_radius=0.5), seeded())
    direction = torch.nn.functional.normalize(torch.randn(500, 3, generator=seeded(6)), dim=1)
    assert surface.sdf(direction * 0.2).max() < 0
    assert surface.sdf(direction * 0.9).min() > 0


def test_background_is_closed_and_only_rays_through_the_sphere_have_a_front() -> None:
    outside = VolumeBackground((8,), 9, 8, 4, 2, seeded())
    rays = RayBatch(
        torch.tensor([[0.0, 0.0, -3.0], [0.0, 2.0, -3.0]]),
        torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]),
    )
    near, far, hit = unit_sphere_interval(rays)
    assert hit.tolist() == [True, False]
    torch.testing.assert_close(torch.cat([near[0], far[0]]), torch.tensor([2.0, 4.0]))
    front, front_color, back, back_color = outside(rays, near, far, hit, None)
    assert front.shape == (2, 2) and front_color.shape == (2, 2, 3)
    assert back.shape == (2, 4) and back_color.shape == (2, 4, 3)
    assert (front[0] > 0).all() and (front[1] == 0).all()
    assert (back[:, -1] == 1).all()


@pytest.mark.parametrize("background", ["volume", "color"])
def test_render_has_the_stated_shapes_and_reaches_every_parameter(background: str) -> None:
    options = {**TINY_OPTIONS["grid"], "background": background}
    model = GridModel(GridConfig.model_validate(options), seeded())
    model.begin_step(0, 10)
    origins = torch.tensor([[0.0, 0.0, -2.5]]).repeat(16, 1)
    aim = (torch.rand(16, 3, generator=seeded(7)) - 0.5) * 1.2
    directions = torch.nn.functional.normalize(aim - origins, dim=1)
    origins.requires_grad_()
    output = model.render(RayBatch(origins, directions), seeded(8))
    assert output.color.shape == (16, 3) and output.normal.shape == (16, 3)
    assert output.depth.shape == output.opacity.shape == (16,)
    assert output.color.min() >= 0 and output.color.max() <= 1
    (output.color.sum() + output.regularisers["eikonal"]).backward()
    assert origins.grad is not None and origins.grad.abs().max() > 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_evaluation_has_no_jitter() -> None:
    model = GridModel(GridConfig.model_validate(TINY_OPTIONS["grid"]), seeded())
    model.begin_step(10, 10)
    origins = torch.tensor([[0.0, 0.0, -2.5]]).repeat(8, 1)
    aim = (torch.rand(8, 3, generator=seeded(9)) - 0.5) * 1.2
    rays = RayBatch(origins, torch.nn.functional.normalize(aim - origins, dim=1))
    with torch.no_grad():
        assert torch.equal(model.render(rays, None).color, model.render(rays, None).color)
        first = model.render(rays, seeded(1)).color
        assert not torch.equal(first, model.render(rays, seeded(2)).color)


def test_points_that_are_not_numbers_stay_inside_the_table() -> None:
    grid, x = small_grid(), some_points(8)
    x[3] = float("nan")
    x[5] = float("inf")
    for values in (
        grid.with_jacobian(x)[0],
        hash_grid._torch_interpolate(grid.table, x, grid.shape, True)[0],
    ):
        finite = values.isfinite().all(1)
        assert finite.tolist() == [True, True, True, False, True, True, True, True]


def test_gradients_of_several_evaluations_add_up() -> None:
    """Where kernels add to `.grad` themselves, as by autograd; after zeroing and anew."""
    grid = HashGrid((4, 9), 2, 6, torch.Generator().manual_seed(3))
    points = [some_points(20, extent=0.9) for _ in range(2)]
    for _ in range(2):
        sum((grid(x) ** 2).sum() for x in points).backward()
        double = HashGrid((4, 9), 2, 6, None).double()
        double.load_state_dict({k: v.double() for k, v in grid.state_dict().items()})
        sum((double(x.double()) ** 2).sum() for x in points).backward()
        assert grid.table.grad is not None
        torch.testing.assert_close(grid.table.grad.double(), double.table.grad)
        grid.zero_grad(set_to_none=False)
