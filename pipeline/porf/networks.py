"""Small networks of the fast field."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pipeline.porf.poses import init_linear_


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
    products = direction * direction[..., [1, 2, 0]]
    return torch.cat([direction, direction * direction, products], dim=-1)


class DistanceNetwork(nn.Module):
    """One hidden layer of squareplus units: distance, features, and the distance's gradient.

    Squareplus, (a + √(a² + ε)) / 2, is a smooth ReLU whose derivative costs one division. The
    gradient is written out with ordinary operations, so training stays first-order.

    Initialised so that distance ≈ |x| − radius where the inputs after the third are zero (SAL,
    "geometric initialisation").
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
        self.hidden = nn.Linear(inputs, hidden_width)
        self.output = nn.Linear(hidden_width, 1 + features)
        with torch.no_grad():
            self.hidden.weight.normal_(0, math.sqrt(2 / hidden_width), generator=generator)
            self.hidden.bias.zero_()
            weight = self.output.weight
            weight[0].normal_(math.sqrt(math.pi / hidden_width), 1e-4, generator=generator)
            weight[1:].normal_(0, 0.1, generator=generator)
            self.output.bias.zero_()
            self.output.bias[0] = -radius

    def distance(self, inputs: Tensor) -> Tensor:
        """Distances (N,) alone."""
        hidden, _ = self._hidden(inputs)
        return (hidden @ self.output.weight[0]) + self.output.bias[0]

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Distances (N,), features (N, F), and the distances' gradients after the inputs."""
        hidden, slope = self._hidden(inputs)
        output = self.output(hidden)
        gradient = (slope * self.output.weight[0]) @ self.hidden.weight
        return output[:, 0], output[:, 1:], gradient

    def _hidden(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        a = self.hidden(inputs)
        root = (a * a + self._EPSILON).sqrt()
        return 0.5 * (a + root), 0.5 * (a / root) + 0.5
