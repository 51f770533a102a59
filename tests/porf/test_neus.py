"""Properties of the reference field, its sampling, rendering and losses."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import InputError
from pipeline.porf.config import NeusConfig
from pipeline.porf.losses import (
    color_loss,
    distortion_per_ray,
    eikonal_loss,
)
from pipeline.porf.neus_field import (
    SdfField,
    WeightNormLinear,
    contract,
    contraction_pullback,
    frequency_encoding,
)
from pipeline.porf.sampling import (
    coarse_depths,
    hierarchical_depths,
    near_far,
    outside_depths,
    outside_fractions,
    points_at,
    sample_pdf,
    section_weights,
)
from pipeline.porf.sdf_core import SdfCore, softplus_with_slope
from tests.porf.textbook import pairwise_distortion

SMALL = NeusConfig(
    hidden_width=64,
    hidden_layers=4,
    skip_layer=2,
    color_width=16,
    color_layers=1,
    feature_width=8,
    coarse_samples=32,
    importance_samples=32,
    outside_samples=8,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def points(count: int, scale: float, seed: int = 0) -> Tensor:
    return scale * torch.randn(count, 3, generator=seeded(seed), dtype=torch.float64)


def sphere_rays(count: int = 40, aim_radius: float = 0.3) -> tuple[Tensor, Tensor]:
    """Float32 rays (count, 3) from distance 3 to points at `aim_radius`."""
    origins = 3 * F.normalize(points(count, 1.0, seed=1).float(), dim=1)
    aim = aim_radius * F.normalize(points(count, 1.0, seed=2).float(), dim=1)
    return origins, F.normalize(aim - origins, dim=1)


class TestContraction:
    def test_all_of_space_fits_into_the_ball_of_radius_two(self) -> None:
        x = points(500, 50.0)
        assert float(contract(x).norm(dim=1).max()) < 2
        torch.testing.assert_close(F.normalize(contract(x), dim=1), F.normalize(x, dim=1))
        inside = F.normalize(x, dim=1) * torch.linspace(0, 0.999, 500)[:, None]
        assert torch.equal(contract(inside), inside)

    def test_it_is_continuous_at_the_unit_sphere(self) -> None:
        direction = F.normalize(points(20, 1.0), dim=1)
        step = contract(direction * (1 + 1e-9)) - contract(direction * (1 - 1e-9))
        assert float(step.norm(dim=1).max()) < 1e-8

    @pytest.mark.parametrize("scale", [0.0, 0.2, 0.7, 3.0, 100.0])
    def test_its_pullback_is_autograds(self, scale: float) -> None:
        x = points(100, scale).requires_grad_()
        upstream = points(100, 1.0, seed=3)
        (expected,) = torch.autograd.grad(contract(x), x, upstream)
        torch.testing.assert_close(contraction_pullback(x.detach(), upstream), expected)


class TestField:
    def test_encoding_layout(self) -> None:
        x = torch.tensor([[0.1, 0.2, 0.3]])
        expected = [torch.sin(x), torch.cos(x), torch.sin(2 * x), torch.cos(2 * x)]
        torch.testing.assert_close(frequency_encoding(x, 2), torch.cat(expected, dim=1))
        assert frequency_encoding(x, 0).shape == (1, 0)

    def test_softplus_is_the_librarys(self) -> None:
        a = torch.linspace(-3, 3, 3001, dtype=torch.float64)
        value, slope = softplus_with_slope(a.clone())
        exact = torch.log1p(torch.exp(-100 * a.abs())) / 100 + a.relu()
        torch.testing.assert_close(value, exact, rtol=0, atol=1e-12)
        torch.testing.assert_close(slope, torch.sigmoid(100 * a))
        single = softplus_with_slope(a.float())[0]
        torch.testing.assert_close(single, F.softplus(a.float(), beta=100), rtol=1e-6, atol=1e-8)

    @pytest.mark.parametrize("skip_layer", [1, 2])
    @pytest.mark.parametrize("points_too", [True, False])
    def test_hand_written_gradients(self, skip_layer: int, points_too: bool) -> None:
        """Against finite differences, of a sharp little network with the skip anywhere."""
        generator = seeded(4)
        widths = [5, 9, 9, 9, 4]
        flat: list[Tensor] = []
        for i in range(4):
            rows = widths[i + 1] - 5 if i + 1 == skip_layer else widths[i + 1]
            columns = widths[i]
            flat.append(0.1 * torch.randn(rows, columns, generator=generator, dtype=torch.float64))
            flat.append(0.02 * torch.randn(rows, generator=generator, dtype=torch.float64))
        encoded = torch.randn(6, 5, generator=generator, dtype=torch.float64)
        leaves = [tensor.requires_grad_() for tensor in flat]
        encoded.requires_grad_(points_too)

        def run(x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
            return SdfCore.apply(x, skip_layer, *weights)

        assert torch.autograd.gradcheck(run, (encoded, *leaves), eps=1e-6, atol=1e-5)

    @pytest.mark.parametrize(("frequencies", "scale"), [(6, 0.5), (6, 3.0), (2, 1.0), (0, 1.0)])
    def test_normals_are_the_gradient_of_the_distance(self, frequencies: int, scale: float) -> None:
        field = SdfField(hidden_width=64, frequencies=frequencies, generator=seeded(5)).double()
        with torch.no_grad():
            for parameter in field.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=seeded(6)), alpha=0.02)
        x = points(50, scale).requires_grad_()
        sample = field(x)
        (expected,) = torch.autograd.grad(sample.sdf.sum(), x, retain_graph=True)
        torch.testing.assert_close(sample.gradient, expected, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(field.sdf(x), sample.sdf.detach(), rtol=1e-12, atol=1e-13)

    def test_it_starts_as_a_rough_sphere(self) -> None:
        field = SdfField(init_radius=0.5, generator=seeded(7))
        directions = F.normalize(points(200, 1.0).float(), dim=1)
        radii = torch.linspace(0.05, 1.0, 20)
        x = (radii[:, None, None] * directions).reshape(-1, 3)
        sample = field(x)
        sdf = sample.sdf.detach().reshape(20, 200)
        assert bool((sdf[0] < -0.1).all())
        assert bool((sdf[-1] > 0.1).all())
        crossing = radii[(sdf > 0).int().argmax(0)]
        assert 0.4 < float(crossing.mean()) < 0.6
        normals = F.normalize(sample.gradient.detach(), dim=1)
        outward = (normals * F.normalize(x, dim=1)).sum(1)[2000:]
        assert float(outward.min()) > 0.7
        assert float(outward.mean()) > 0.95

    def test_weight_norm_keeps_the_given_weight_and_separates_length(self) -> None:
        weight = points(5, 1.0)
        layer = WeightNormLinear(weight, torch.zeros(5))
        torch.testing.assert_close(layer.dense()[0], weight)
        with torch.no_grad():
            layer.weight_v.mul_(3)
            layer.weight_g.mul_(2)
        torch.testing.assert_close(layer.dense()[0], 2 * weight)

    def test_sizes_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(InputError, match="skip_layer"):
            SdfField(hidden_layers=4, skip_layer=4)
        with pytest.raises(InputError, match="hidden_width"):
            SdfField(hidden_width=39)


class TestSampling:
    def test_bounds_are_one_unit_around_the_closest_point(self) -> None:
        origins, directions = sphere_rays()
        near, far = near_far(origins, directions)
        closest = points_at(origins, directions, 0.5 * (near + far))[:, 0]
        assert float((closest * directions).sum(1).abs().max()) < 1e-5
        torch.testing.assert_close(far - near, torch.full_like(far, 2))

    def test_coarse_samples(self) -> None:
        near, far = torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [4.0]])
        even = coarse_depths(near, far, 5, None)
        torch.testing.assert_close(even[0], torch.tensor([1.0, 1.5, 2.0, 2.5, 3.0]))
        moved = coarse_depths(near, far, 5, seeded(1)) - even
        assert float(moved.std(dim=1).max()) < 1e-6  # a ray moves as a whole
        assert float(moved.abs().max()) <= 0.2
        assert torch.equal(coarse_depths(near, far, 5, seeded(1)) - even, moved)

    def test_outside_samples_are_even_in_inverse_depth_and_behind_the_sphere(self) -> None:
        far = torch.tensor([[2.0], [5.0]], dtype=torch.float64)
        for generator in (None, seeded(2)):
            fractions = outside_fractions(2, 16, far, generator)
            assert float(fractions.diff(dim=1).max()) < 0
            depths = outside_depths(far, fractions, 64)
            assert bool((depths > far).all())
        even = outside_depths(far, outside_fractions(2, 16, far, None), 64) - 1 / 64
        steps = (1 / even).diff(dim=1)
        torch.testing.assert_close(steps, steps[:, :1].expand_as(steps))

    def test_pdf_sampling_inverts_the_distribution(self) -> None:
        bins = torch.tensor([[0.0, 1.0, 2.0, 4.0]])
        torch.testing.assert_close(
            sample_pdf(bins, torch.tensor([[1.0, 1.0, 2.0]]), 4),
            torch.tensor([[0.5, 1.5, 2.5, 3.5]]),
            rtol=0,
            atol=1e-4,
        )
        spike = sample_pdf(bins, torch.tensor([[0.0, 1.0, 0.0]]), 100)
        assert 1.0 <= float(spike.min()) < float(spike.max()) <= 2.0
        assert torch.isfinite(sample_pdf(bins, torch.zeros(1, 3), 7)).all()

    def test_importance_samples_gather_at_the_first_surface(self) -> None:
        origins, directions = sphere_rays()
        near, far = near_far(origins, directions)

        def sphere(x: Tensor) -> Tensor:
            return x.norm(dim=1) - 0.4

        coarse = coarse_depths(near, far, 32, None)
        depths = hierarchical_depths(sphere, origins, directions, coarse, count=32, steps=4)
        assert depths.shape == (40, 64)
        assert bool((depths.diff(dim=1) >= 0).all())
        along = (origins * directions).sum(1)
        entry = -along - (along**2 - (origins**2).sum(1) + 0.4**2).sqrt()
        close = (depths - entry[:, None]).abs() < 0.05
        assert float(close.double().sum(1).min()) >= 20  # evenly spread would be 4
        unchanged = hierarchical_depths(sphere, origins, directions, coarse, count=0, steps=4)
        assert torch.equal(unchanged, coarse)

    def test_surfaces_beyond_the_unit_sphere_attract_no_samples(self) -> None:
        origins, directions = sphere_rays(20)
        origins = origins + 0.9 * F.normalize(torch.linalg.cross(origins, directions), dim=1)
        near, far = near_far(origins, directions)
        coarse = coarse_depths(near, far, 32, None)

        def wall(offset: float) -> Tensor:
            """Spread of the new samples where a wall stands at this depth, -1 to 1 on the ray."""

            def sdf(x: Tensor) -> Tensor:
                depths = (x.reshape(20, -1, 3) * directions[:, None]).sum(-1)
                start = (origins * directions).sum(1, keepdim=True)
                return (0.5 * (near + far) + offset - (depths - start)).reshape(-1)

            depths = hierarchical_depths(sdf, origins, directions, coarse, count=16, steps=1)
            return ((depths - 0.5 * (near + far) - offset).abs() < 0.1).double().sum(1)

        assert float(wall(0.0).min()) > 12  # inside the sphere: found
        assert float(wall(0.8).max()) < 8  # on the ray, but outside of the sphere: ignored

    def test_weights_share_out_what_light_is_left(self) -> None:
        alpha = torch.rand(7, 20, generator=seeded(3), dtype=torch.float64)
        weights = section_weights(alpha)
        left = torch.prod(1 - alpha, dim=1)
        torch.testing.assert_close(weights.sum(1), 1 - left, rtol=0, atol=1e-5)
        assert torch.equal(section_weights(torch.ones(1, 3))[0, :1], torch.ones(1))


class TestLosses:
    def test_color_sums_channels_and_averages_rays(self) -> None:
        color, target = torch.zeros(4, 3), torch.full((4, 3), 0.5)
        assert float(color_loss(color, target)) == pytest.approx(1.5)
        color[0] = 9.0
        mask = torch.tensor([False, True, True, False])
        assert float(color_loss(color, target, mask)) == pytest.approx(1.5)
        assert float(color_loss(color, target, torch.zeros(4))) == 0.0

    def test_eikonal_counts_samples_within_radius_two(self) -> None:
        x = torch.tensor([[0.0, 0, 1.9], [0, 0, 2.1]])
        gradients = torch.tensor([[0.0, 0, 3.0], [0, 0, 100.0]])
        assert float(eikonal_loss(gradients, x)) == pytest.approx(4.0, rel=1e-4)
        assert float(eikonal_loss(gradients, x + 5)) == 0.0

    def test_distortion_is_the_definition(self) -> None:
        generator = seeded(4)
        depths = (
            (0.5 + 6 * torch.rand(5, 30, generator=generator, dtype=torch.float64)).sort().values
        )
        weights = torch.rand(5, 30, generator=generator, dtype=torch.float64)
        near, far = torch.full((5, 1), 1.0).double(), torch.full((5, 1), 3.0).double()
        torch.testing.assert_close(
            distortion_per_ray(weights, depths, near, far),
            pairwise_distortion(weights, depths, near, far),
        )

    def test_distortion_prefers_one_surface(self) -> None:
        depths = torch.linspace(1, 3, 50)[None]
        near, far = torch.tensor([[1.0]]), torch.tensor([[3.0]])
        peak, spread = torch.zeros(1, 50), torch.full((1, 50), 0.02)
        peak[0, 20] = 1
        compact = distortion_per_ray(peak, depths, near, far)
        assert float(compact) < 0.1 * float(distortion_per_ray(spread, depths, near, far))

    def test_distortion_of_a_camera_inside_the_sphere_is_finite(self) -> None:
        depths = torch.linspace(-1, 1, 21)[None].requires_grad_()
        near, far = torch.tensor([[-1.0]]), torch.tensor([[0.0]])
        loss = distortion_per_ray(torch.full((1, 21), 0.05), depths, near, far).sum()
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(depths.grad).all()
