"""The fast surface: hashed feature grid, distance network with analytic normals, colour network."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.porf.config import GridConfig
from pipeline.porf.hash_grid import HashGrid
from pipeline.porf.networks import DistanceNetwork, SmallNetwork, direction_features

_FEATURES = 15
_CHUNK = 16_384


@torch.no_grad()
def fill_slabs(
    distances: Tensor, sdf: Callable[[Tensor], Tensor], begin: int = 0, end: int | None = None
) -> None:
    """Put signed distances into slabs [begin, end) along x of a grid over [-1, 1]³.

    Args:
        distances: (1, 1, N, N, N), indexed x, y, z; written in place.
        sdf: signed distances (P,) at points (P, 3).
    """
    size = len(distances[0, 0])
    axis = torch.linspace(-1, 1, size, device=distances.device)
    for index in range(begin, size if end is None else end):
        slab = torch.stack(torch.meshgrid(axis[index : index + 1], axis, axis, indexing="ij"), -1)
        values = [sdf(points) for points in slab.reshape(-1, 3).split(_CHUNK)]
        distances[0, 0, index] = torch.cat(values).view(size, size)


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
