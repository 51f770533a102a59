"""The one-pass step against an independent textbook step, in float64 and small."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.formats.matches import ViewMatches
from pipeline.porf.config import NeusConfig
from pipeline.porf.epipolar import MatchTable, epipolar_loss, symmetric_epipolar_errors_px
from pipeline.porf.losses import color_loss, distortion_loss, eikonal_loss, total_loss
from pipeline.porf.neus_model import NeusModel
from pipeline.porf.neus_renderer import SampledRays
from pipeline.porf.poses import PoRF
from pipeline.porf.rays import RayBatch
from tests.porf import textbook

SMALL = NeusConfig(
    hidden_width=48,
    hidden_layers=4,
    skip_layer=2,
    color_width=32,
    color_layers=2,
    feature_width=16,
    coarse_samples=16,
    importance_samples=16,
    outside_samples=8,
)
RAYS = 24


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model() -> NeusModel:
    """A field off its initial sphere, so that no term vanishes."""
    model = NeusModel(SMALL, seeded(1)).double()
    generator = seeded(2)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(0.05 * parameter.abs().mean() * noise)
    model.cos_anneal = 0.4
    return model


def rays_around(seed: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Origins, directions, target colours (RAYS, 3): cameras at distance 3, looking inwards."""
    generator = seeded(seed)
    origins = torch.randn(RAYS, 3, generator=generator, dtype=torch.float64)
    origins = 3 * torch.nn.functional.normalize(origins, dim=1)
    aim = 0.4 * torch.randn(RAYS, 3, generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.normalize(aim - origins, dim=1)
    return origins, directions, torch.rand(RAYS, 3, generator=generator, dtype=torch.float64)


def gradients(model: NeusModel, *leaves: Tensor) -> dict[str, Tensor]:
    """Gradients by name, and cleared."""
    named = dict(model.named_parameters()) | {f"leaf{i}": leaf for i, leaf in enumerate(leaves)}
    found = {name: parameter.grad.clone() for name, parameter in named.items()}
    for parameter in named.values():
        parameter.grad = None
    return found


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    for name, gradient in theirs.items():
        distance = float((ours[name] - gradient).norm() / gradient.norm())
        assert distance < tolerance, f"{name}: {distance:.1e}"


def one_pass_loss(model: NeusModel, rays: SampledRays, target: Tensor) -> Tensor:
    out = model.shade(rays, model.cos_anneal, model.layers())
    at = out.sections
    return total_loss(
        color_loss(out.color, target),
        eikonal_loss(out.gradients, at.points),
        distortion_loss(out.weights, at.depths, at.near, at.far),
        torch.zeros(()),
    )


def test_loss_and_every_gradient_equal_the_textbook(model: NeusModel) -> None:
    origins, directions, target = rays_around()
    origins.requires_grad_()
    directions.requires_grad_()
    drawn = model.sample(origins, directions, seeded(4), model.layers())
    rays = SampledRays(origins, directions, *drawn)

    ours = one_pass_loss(model, rays, target)
    ours.backward()
    our_gradients = gradients(model, origins, directions)
    theirs = textbook.photometric_loss(model, rays, target, model.cos_anneal)
    theirs.backward()
    their_gradients = gradients(model, origins, directions)

    assert float(ours.detach()) == pytest.approx(float(theirs.detach()), rel=1e-9)
    assert_same(our_gradients, their_gradients, 1e-6)


@pytest.mark.parametrize("chunk", [5, RAYS])
def test_chunks_change_nothing(model: NeusModel, chunk: int) -> None:
    """Recomputed chunks and accumulated chunks against one graph, same random samples."""
    origins, directions, target = rays_around()
    origins.requires_grad_()
    directions.requires_grad_()
    rays = RayBatch(origins, directions)
    weights = {"eikonal": 0.1, "distortion": 0.001}

    def rendered(chunk_rays: int) -> dict[str, Tensor]:
        model.chunk_rays = chunk_rays
        out = model.render(rays, seeded(5))
        penalty = sum(weights[name] * value for name, value in out.regularisers.items())
        (color_loss(out.color, target) + penalty).backward()
        return gradients(model, origins, directions)

    whole = rendered(RAYS)
    assert_same(rendered(chunk), whole, 1e-9)

    model.chunk_rays = chunk
    out, ray_term = model.backward(
        rays, seeded(5), lambda c, rows: (c - target[rows]).abs().sum() / RAYS, weights
    )
    ray_term.backward()
    assert_same(gradients(model, origins, directions), whole, 1e-9)
    expected = model.render(rays, seeded(5))
    torch.testing.assert_close(out.color, expected.color.detach())
    for name, value in expected.regularisers.items():
        torch.testing.assert_close(out.regularisers[name], value.detach())


def test_epipolar_loss_and_gradient_equal_the_textbook() -> None:
    """Through the pose network and with intrinsics that are refined as well."""
    generator = seeded(6)
    views = 4
    init = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    init[:, :3, 3] = torch.randn(views, 3, generator=generator, dtype=torch.float64)
    K = torch.tensor([[60.0, 0.3, 31.0], [0, 58.0, 22.0], [0, 0, 1]], dtype=torch.float64)
    K = (K + torch.zeros(views, 3, 3, dtype=torch.float64)).requires_grad_()
    pairs = []
    entries = []
    for ref in range(views):
        sources = [src for src in range(views) if src != ref]
        blocks = [
            torch.rand(15 + 3 * src, 4, generator=generator, dtype=torch.float64) * 60
            for src in sources
        ]
        blocks = [block.float() for block in blocks]
        pairs += [(ref, s, b.double()) for s, b in zip(sources, blocks, strict=True)]
        kept = [np.zeros(len(block), dtype=bool) for block in blocks]
        entries.append(ViewMatches(sources, [b.numpy() for b in blocks], kept))
    field = PoRF(init, zero_init=False, hidden=16, scale=0.3, generator=seeded(7))
    table = MatchTable.from_matches(entries)

    results = []
    for loss in (
        epipolar_loss(table, field(), K, inlier_px=25.0).loss,
        textbook.epipolar_loss(pairs, field(), K, inlier_px=25.0),
    ):
        inputs = [*field.parameters(), K]
        results.append((loss.detach(), torch.autograd.grad(loss, inputs)))
    (ours, our_gradients), (theirs, their_gradients) = results
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    for mine, other in zip(our_gradients[:-1], their_gradients[:-1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-7, atol=1e-10)
    # The convention fixes the zeros and the one of K; only the textbook differentiates them.
    free = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(our_gradients[-1], their_gradients[-1] * free, rtol=1e-7, atol=1e-10)

    errors = symmetric_epipolar_errors_px(table, field(), K)
    plain = [textbook.pair_errors(m, field()[r], K[r], field()[s], K[s]) for r, s, m in pairs]
    torch.testing.assert_close(errors, torch.cat(plain), rtol=1e-9, atol=1e-9)
