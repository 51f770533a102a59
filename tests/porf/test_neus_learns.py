"""The reference field learns a surface from nothing but colours."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.porf.config import NeusConfig
from pipeline.porf.losses import color_loss
from pipeline.porf.neus_model import NeusModel
from pipeline.porf.rays import RayBatch

RADIUS = 0.7
SMALL = NeusConfig(
    hidden_width=64,
    hidden_layers=4,
    skip_layer=2,
    color_width=32,
    color_layers=2,
    feature_width=16,
    coarse_samples=24,
    importance_samples=24,
    outside_samples=4,
)


def unit(count: int, generator: torch.Generator) -> Tensor:
    return F.normalize(torch.randn(count, 3, generator=generator), dim=1)


def photographed(count: int, generator: torch.Generator) -> tuple[RayBatch, Tensor]:
    """Rays and exact colours of a patterned ball in front of darkness."""
    origins = 3 * unit(count, generator)
    aim = torch.rand(count, 1, generator=generator) * unit(count, generator)
    directions = F.normalize(aim - origins, dim=1)
    along = (origins * directions).sum(1)
    discriminant = along**2 - (origins**2).sum(1) + RADIUS**2
    entry = -along - discriminant.clamp(min=0).sqrt()
    pattern = 0.5 + 0.4 * torch.sin(5 * (origins + entry[:, None] * directions))
    color = torch.where(discriminant[:, None] > 0, pattern, torch.full_like(pattern, 0.05))
    return RayBatch(origins, directions), color


def surface_error(model: NeusModel) -> float:
    """Mean distance of the learned surface from the ball's, by its own signed distances."""
    ball = RADIUS * unit(500, torch.Generator().manual_seed(3))
    return float(model.sdf(ball).abs().mean())


@pytest.mark.slow
def test_a_ball_is_learned_from_colours() -> None:
    model = NeusModel(SMALL, torch.Generator().manual_seed(0))
    model.chunk_rays = 128
    generator = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(model.parameters(), lr=2e-3)
    start, losses = surface_error(model), []
    for step in range(400):
        rays, target = photographed(128, generator)
        model.cos_anneal = min(1.0, step / 100)
        out = model.render(rays, generator)
        color = color_loss(out.color, target)
        penalty = 0.1 * out.regularisers["eikonal"] + 0.001 * out.regularisers["distortion"]
        optimiser.zero_grad()
        (color + penalty).backward()
        optimiser.step()
        losses.append(float(color.detach()))
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    assert surface_error(model) < 0.5 * start
    ball = unit(500, torch.Generator().manual_seed(4))
    assert bool((model.sdf((RADIUS + 0.2) * ball) > 0).all())
    assert bool((model.sdf((RADIUS - 0.2) * ball) < 0).all())
