"""The fast surface: hashed feature grid, distance network with analytic normals, colour network."""

import torch
from torch import Tensor, nn

from pipeline.porf.config import GridConfig
from pipeline.porf.hash_grid import HashGrid
from pipeline.porf.networks import DistanceNetwork, SmallNetwork, direction_features

_FEATURES = 15


class GridSurface(nn.Module):
    """Signed distance and colour of points in the normalised frame."""

    def __init__(self, config: GridConfig, generator: torch.Generator | None) -> None:
        super().__init__()
        self.grid = HashGrid(config.resolutions, config.channels, config.log2_entries, generator)
        self.distance = DistanceNetwork(
            3 + self.grid.width, config.hidden_width, _FEATURES, config.initial_radius, generator
        )
        inputs = _FEATURES + self.grid.width + 3 + 3 + 9
        widths = [inputs, config.hidden_width, config.hidden_width, 3]
        self.color_network = SmallNetwork(widths, generator)

    def sdf(self, x: Tensor, active_levels: int | None = None) -> Tensor:
        """Signed distances (N,) at x (N, 3)."""
        return self.distance.distance(torch.cat([x, self.grid(x, active_levels)], dim=1))

    def forward(self, x: Tensor, active_levels: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Signed distances (N,), their gradients (N, 3), and features (N, F) for the colour."""
        value, jacobian = self.grid.with_jacobian(x, active_levels)
        sdf, features, by_input = self.distance(torch.cat([x, value], dim=1))
        gradient = by_input[:, :3] + (jacobian * by_input[:, 3:]).sum(-1).t()
        return sdf, gradient, torch.cat([features, value], dim=1)

    def color(
        self, x: Tensor, normal: Tensor, direction: Tensor, features: Tensor, view_share: float
    ) -> Tensor:
        """Colours (N, 3) in [0, 1] of points with unit normals, seen along unit directions.

        Args:
            view_share: how much the direction counts, from 0 to 1.
        """
        seen_along = direction_features(direction) * view_share
        inputs = torch.cat([features, x, normal, seen_along], dim=1)
        return torch.sigmoid(self.color_network(inputs))
