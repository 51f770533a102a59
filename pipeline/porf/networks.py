"""Small networks of the fast field."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pipeline.porf.poses import init_linear_

_SMALL = 0.1
_SMALLEST_RADIUS = 1e-6


class SmallNetwork(nn.Module):
    """Linear layers with ReLU between them; torch's default initialisation from `generator`."""

    def __init__(self, widths: Sequence[int], generator: torch.Generator | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            init_linear_(nn.Linear(a, b), generator) for a, b in pairwise(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, widths[0]) → (N, widths[-1])."""
        for layer in self.layers[:-1]:
            x = torch.relu_(layer(x))
        return self.layers[-1](x)


def direction_features(direction: Tensor) -> Tensor:
    """(..., 9) polynomials up to degree two of unit directions (..., 3)."""
    products = direction * direction.roll(-1, dims=-1)
    return torch.cat([direction, direction * direction, products], dim=-1)


class DistanceNetwork(nn.Module):
    """One hidden layer of squareplus units: distance, features, and the distance's gradient.

    Squareplus, (a + √(a² + ε)) / 2, is a smooth ReLU whose derivative costs one division. The
    gradient is written out with ordinary operations, so training stays first-order.

    The network gives the difference from a sphere's distance, |x| − radius, where x are the first
    three inputs; that difference starts near zero, so the first surface is the sphere.
    """

    _EPSILON = 2e-3

    def __init__(
        self,
        inputs: int,
        hidden_width: int,
        features: int,
        radius: float,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.radius = radius
        self.hidden = init_linear_(nn.Linear(inputs, hidden_width), generator)
        self.output = init_linear_(nn.Linear(hidden_width, 1 + features), generator)
        with torch.no_grad():
            self.output.weight[0] *= _SMALL
            self.output.bias[0] = 0.0

    def distance(self, inputs: Tensor) -> Tensor:
        """Distances (N,) alone."""
        hidden, _ = self._hidden(inputs)
        difference = (hidden @ self.output.weight[0]) + self.output.bias[0]
        return difference + inputs[:, :3].norm(dim=1) - self.radius

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances (N,), features (N, F), and the distances' gradients after the inputs."""
        hidden, slope = self._hidden(inputs)
        output = self.output(hidden)
        gradient = (slope * self.output.weight[0]) @ self.hidden.weight
        norm = inputs[:, :3].norm(dim=1, keepdim=True)
        outward = inputs[:, :3] / norm.clamp(min=_SMALLEST_RADIUS)
        gradient = torch.cat([gradient[:, :3] + outward, gradient[:, 3:]], dim=1)
        return output[:, 0] + norm[:, 0] - self.radius, output[:, 1:], gradient

    def _hidden(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        a = self.hidden(inputs)
        root = (a * a + self._EPSILON).sqrt()
        return 0.5 * (a + root), 0.5 * (a / root) + 0.5
