"""Rendering with the published networks: rays, chunks, schedules."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.porf.config import NeusConfig
from pipeline.porf.neus_model import NeusModel
from pipeline.porf.neus_renderer import SampledRays, section_opacity
from pipeline.porf.rays import RayBatch
from pipeline.porf.sampling import (
    outside_depths,
    points_at,
)
from tests.porf.test_neus import SMALL, points, seeded, sphere_rays


class TestRendering:
    def test_rays_are_cut_at_their_samples(self) -> None:
        model = NeusModel(SMALL, seeded(15))
        origins, directions = sphere_rays(4)
        surface, fractions = model.sample(origins, directions, None, model.layers())
        cut = model.sections(SampledRays(origins, directions, surface, fractions))
        behind = outside_depths(cut.far, fractions, SMALL.coarse_samples)
        starts = torch.cat([surface, behind], dim=1)
        torch.testing.assert_close(cut.lengths[:, :-1], starts.diff(dim=1))
        torch.testing.assert_close(cut.lengths[:, -1], torch.full((4,), 2 / 32))
        torch.testing.assert_close(cut.depths, starts + 0.5 * cut.lengths)
        torch.testing.assert_close(cut.points, points_at(origins, directions, cut.depths))

    def test_opacity_annealing(self) -> None:
        """At ratio 1 only surfaces that face the ray are seen; at 0 all are."""
        sdf, lengths = torch.zeros(1, 2), torch.full((1, 2), 0.1)
        cosine, inv_s = torch.tensor([[-1.0, 0.5]]), torch.tensor(100.0)
        facing, turned = section_opacity(sdf, cosine, lengths, inv_s, 1.0)[0]
        assert float(facing) > 0.9
        assert float(turned) < 1e-4
        assert float(section_opacity(sdf, cosine, lengths, inv_s, 0.0)[0, 1]) > 0.5

    def test_a_sharp_sphere_is_rendered_where_it_is(self) -> None:
        model = NeusModel(NeusConfig(), seeded(8))
        with torch.no_grad():
            model.variance.variance.fill_(0.7)
        origins, directions = sphere_rays(16, aim_radius=0.1)
        with torch.no_grad():
            out = model.render(RayBatch(origins, directions), None)
        hits = origins + out.depth[:, None] * directions
        at_surface = model.sdf(hits)
        assert float(at_surface.abs().max()) < 5e-3
        assert float(out.opacity.min()) > 0.99
        there = F.normalize(model.sdf_and_normal(hits)[1], dim=1)
        assert float((F.normalize(out.normal, dim=1) * there).sum(1).min()) > 0.99

    def test_same_generator_same_render_and_evaluation_needs_none(self) -> None:
        model = NeusModel(SMALL, seeded(9))
        rays = RayBatch(*sphere_rays())
        with torch.no_grad():
            drawn, again, other = (model.render(rays, seeded(s)).color for s in (1, 1, 2))
            even, even_again = (model.render(rays, None).color for _ in range(2))
            model.chunk_rays = 1
            in_chunks = model.render(rays, None)
        assert torch.equal(drawn, again)
        assert not torch.equal(drawn, other)
        assert torch.equal(even, even_again)
        torch.testing.assert_close(in_chunks.color, even, rtol=0, atol=2e-5)
        assert in_chunks.depth.shape == in_chunks.opacity.shape == (len(even),)

    @pytest.mark.parametrize("config", [SMALL, NeusConfig()])
    def test_memory_of_a_ray_is_foreseen(self, config: NeusConfig) -> None:
        """What a chunk keeps for its backward pass, against the estimate that sizes chunks."""
        model = NeusModel(config, seeded(16))
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        rays = RayBatch(*sphere_rays(4))
        model.chunk_rays = 4
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.render(rays, None)
        weights = sum(p.untyped_storage().nbytes() for p in model.parameters())
        foreseen = 4 * model._bytes_per_ray()
        assert 0.3 * foreseen < sum(kept.values()) - 2 * weights < foreseen

    def test_chunks_are_sized_by_device_and_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = NeusModel(SMALL, seeded(17))
        on_cpu = model._rays_at_once(with_gradient=True)
        monkeypatch.setattr(NeusModel, "device", torch.device("cuda"))
        sizes = []
        for free_bytes in (2**30, 2**33):
            monkeypatch.setattr(
                torch.cuda, "mem_get_info", lambda _, free=free_bytes: (free, 2**35)
            )
            sizes.append(NeusModel(SMALL, seeded(17))._rays_at_once(with_gradient=True))
        assert on_cpu < sizes[0]
        assert sizes[1] == pytest.approx(8 * sizes[0], rel=0.01)
        assert sizes[0] * model._bytes_per_ray() < 2**30

    def test_queries_in_chunks_are_the_fields_own(self) -> None:
        model = NeusModel(SMALL, seeded(10))
        x = points(20_000, 1.0).float()
        sdf, normal = model.sdf_and_normal(x)
        torch.testing.assert_close(model.sdf(x), sdf, rtol=1e-5, atol=1e-6)
        own = model.sdf_field(x[-5:])
        torch.testing.assert_close(normal[-5:], own.gradient.detach(), rtol=1e-4, atol=1e-5)
        assert model.sdf(x[:0]).shape == (0,)

    @pytest.mark.parametrize(
        "change",
        [
            {"outside_samples": 0},
            {"importance_samples": 0},
            {"view_frequencies": 0, "sdf_frequencies": 0},
            {"outside_samples": 1, "color_layers": 3},
        ],
    )
    def test_every_configuration_trains(self, change: dict[str, int]) -> None:
        model = NeusModel(SMALL.model_copy(update=change), seeded(11))
        out = model.render(RayBatch(*sphere_rays(6)), seeded(1))
        (out.color.sum() + sum(out.regularisers.values())).backward()
        assert all(
            parameter.grad is not None and torch.isfinite(parameter.grad).all()
            for parameter in model.parameters()
        )

    def test_a_camera_inside_the_sphere_and_one_that_looks_away_stay_finite(self) -> None:
        model = NeusModel(SMALL, seeded(12))
        origins = torch.tensor([[0.0, 0, 0], [0, 0, 3.0], [0, 0, -1.0]]).requires_grad_()
        directions = torch.tensor([[0.0, 0, 1], [0, 0, 1], [0, 0, -1]])
        out = model.render(RayBatch(origins, directions), None)
        (out.color.sum() + sum(out.regularisers.values())).backward()
        assert torch.isfinite(out.color).all()
        assert torch.isfinite(origins.grad).all()

    def test_schedule_groups_and_state(self) -> None:
        model = NeusModel(SMALL, seeded(13))
        ratios = []
        for step in (0, 1250, 5000, 9000):
            model.begin_step(step, 50_000)
            ratios.append(model.cos_anneal)
        assert ratios == [0.0, 0.25, 1.0, 1.0]
        (group,) = model.parameter_groups()
        assert group["lr"] == 5e-4
        assert sum(p.numel() for p in group["params"]) == sum(p.numel() for p in model.parameters())
        assert float(model.variance().detach()) == pytest.approx(math.exp(3), rel=1e-6)
        copy = NeusModel(SMALL, seeded(14))
        copy.load_state_dict(model.state_dict())
        x = points(10, 1.0).float()
        assert torch.equal(copy.sdf(x), model.sdf(x))
