"""The reference neural surface: NeuS' signed-distance, colour and variance networks.

Wang et al., "NeuS" (NeurIPS 2021), in the configuration of PoRF: one field serves the object inside
the unit sphere and, contracted, everything outside of it. Parameters carry the names and the layout
of the original code (`lin0.weight_g`, `lin0.weight_v`, `lin0.bias`, …), so its weights load as they
are.

The signed distance, its features and the *analytic* normals come from one pass, which is also
differentiated by hand (`sdf_core`); the textbook way runs the network twice and differentiates its
own gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.porf.poses import init_linear_
from pipeline.porf.sdf_core import SOFTPLUS_BETA, SdfCore

_INV_S_RANGE = (1e-6, 1e6)

DenseLayer = tuple[Tensor, Tensor]
"""Weight (out, in) and bias (out,) of one layer, weight normalisation already applied."""


def contract(x: Tensor) -> Tensor:
    """Map all of space into the ball of radius 2: (..., 3) -> (..., 3).

    The identity inside the unit sphere, ``(2 - 1/|x|) x/|x|`` outside (mip-NeRF 360's contraction).
    """
    norm = x.norm(dim=-1, keepdim=True)
    outside = norm >= 1
    safe_norm = torch.where(outside, norm, torch.ones_like(norm))
    return torch.where(outside, (2 - 1 / safe_norm) * (x / safe_norm), x)


def contraction_pullback(x: Tensor, gradient: Tensor) -> Tensor:
    """Gradient with respect to `contract(x)` -> gradient with respect to `x`, both (..., 3).

    The contraction's Jacobian is symmetric: ``c I + (c'/n) x xᵀ`` with ``n = |x|``,
    ``c = 2/n - 1/n²`` and ``c' = dc/dn``.
    """
    norm = x.norm(dim=-1, keepdim=True)
    outside = norm >= 1
    n = torch.where(outside, norm, torch.ones_like(norm))
    c = 2 / n - 1 / n**2
    dc_dn = -2 / n**2 + 2 / n**3
    radial = (x * gradient).sum(-1, keepdim=True)
    return torch.where(outside, c * gradient + dc_dn / n * x * radial, gradient)


def frequency_encoding(x: Tensor, frequencies: int) -> Tensor:
    """(..., 3) -> (..., 6 * frequencies): per octave 2^k, sin(2^k x), then cos(2^k x)."""
    phase = x[..., None, :] * _octaves(x, frequencies)
    return torch.stack([torch.sin(phase), torch.cos(phase)], dim=-2).flatten(-3)


def _octaves(like: Tensor, frequencies: int) -> Tensor:
    exponents = torch.arange(frequencies, device=like.device, dtype=like.dtype)
    return torch.exp2(exponents)[:, None]


def _encoding_pullback(x: Tensor, gradient: Tensor, frequencies: int) -> Tensor:
    """Gradient by the encoding (N, 6 F) -> gradient by its input (N, 3)."""
    octaves = _octaves(x, frequencies)
    phase = x[:, None, :] * octaves
    by_sin, by_cos = gradient.reshape(len(x), frequencies, 2, 3).unbind(2)
    return (octaves * (by_sin * torch.cos(phase) - by_cos * torch.sin(phase))).sum(1)


def _softplus_inplace(a: Tensor) -> Tensor:
    """The same softplus without autograd, overwriting `a`."""
    slope = torch.sigmoid(SOFTPLUS_BETA * a)
    larger = torch.maximum(slope, 1 - slope, out=slope)
    return a.relu_().add_(larger.log_(), alpha=-1 / SOFTPLUS_BETA)


class WeightNormLinear(nn.Module):
    """Linear layer with weight = g v / |v|, row by row (Salimans and Kingma, 2016)."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight_v = nn.Parameter(weight.clone())
        self.weight_g = nn.Parameter(weight.norm(dim=1, keepdim=True))
        self.bias = nn.Parameter(bias.clone())

    def dense(self) -> DenseLayer:
        """The effective weight and bias; differentiable."""
        scale = self.weight_g / self.weight_v.norm(dim=1, keepdim=True)
        return self.weight_v * scale, self.bias


class _Stack(nn.Module):
    """Layers registered as lin0, lin1, …"""

    def append(self, weight: Tensor, bias: Tensor) -> None:
        """Add one weight-normalised layer."""
        self.add_module(f"lin{len(self._modules)}", WeightNormLinear(weight, bias))

    def dense_layers(self) -> list[DenseLayer]:
        """Effective weights of all layers. Compute once a step and pass to every evaluation."""
        return [child.dense() for child in self.children() if isinstance(child, WeightNormLinear)]


class FieldSample(NamedTuple):
    """`sdf` (N,), `features` (N, F) and `gradient` (N, 3) = d sdf / d x, not normalised."""

    sdf: Tensor
    features: Tensor
    gradient: Tensor


class SdfField(_Stack):
    """Signed distance and features of points in the normalised frame; negative inside.

    Args:
        hidden_layers, hidden_width: 8 and 256 in the reference.
        feature_width: features handed to the colour network.
        frequencies: octaves of the positional encoding (6: 39 inputs with the raw point).
        skip_layer: layer whose input is joined by the encoded point, both divided by √2.
        init_radius: radius of the sphere that geometric initialisation starts from.
        generator: CPU generator of the initial weights; None = torch's global one.

    Raises:
        InputError: sizes that do not fit together.
    """

    def __init__(
        self,
        *,
        hidden_layers: int = 8,
        hidden_width: int = 256,
        feature_width: int = 256,
        frequencies: int = 6,
        skip_layer: int = 4,
        init_radius: float = 0.5,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.skip_layer = skip_layer
        encoded = 3 + 6 * frequencies
        if not 0 < skip_layer < hidden_layers:
            raise InputError(f"skip_layer must lie in 1 to {hidden_layers - 1}, got {skip_layer}.")
        if hidden_width <= encoded:
            raise InputError(
                f"hidden_width must exceed the {encoded} inputs that the skip brings in, "
                f"got {hidden_width}."
            )
        widths = [encoded] + [hidden_width] * hidden_layers + [1 + feature_width]
        for i, (fan_in, fan_out) in enumerate(pairwise(widths)):
            rows = fan_out - encoded if i + 1 == skip_layer else fan_out
            is_last = i == hidden_layers
            if is_last:
                weight, bias = _output_init(rows, fan_in, init_radius, generator)
            else:
                # Sines and cosines are silenced at first: the start is a smooth sphere.
                silent = encoded - 3 if i in (0, skip_layer) else 0
                weight, bias = _hidden_init(rows, fan_in, silent, generator)
            self.append(weight, bias)

    @torch.no_grad()
    def sdf(self, x: Tensor, layers: Sequence[DenseLayer] | None = None) -> Tensor:
        """Signed distances (N,) of points (N, 3); values only, without a graph."""
        layers = self.dense_layers() if layers is None else layers
        encoded = self._encode(contract(x))
        hidden = encoded
        for i, (weight, bias) in enumerate(layers[:-1]):
            if i == self.skip_layer:
                hidden = torch.cat([hidden, encoded], dim=1).mul_(math.sqrt(0.5))
            hidden = _softplus_inplace(torch.addmm(bias, hidden, weight.t()))
        weight, bias = layers[-1]
        return torch.addmm(bias[:1], hidden, weight[:1].t()).squeeze(1)

    def forward(self, x: Tensor, layers: Sequence[DenseLayer] | None = None) -> FieldSample:
        """Signed distance, features and normals of points (N, 3) in one pass.

        Differentiable with respect to parameters and points. `layers`: this module's
        `dense_layers()`, if they are at hand.
        """
        layers = self.dense_layers() if layers is None else layers
        y = contract(x)
        flat = [tensor for layer in layers for tensor in layer]
        output, by_encoded = SdfCore.apply(self._encode(y), self.skip_layer, *flat)
        by_y = by_encoded[:, :3] + _encoding_pullback(y, by_encoded[:, 3:], self.frequencies)
        return FieldSample(output[:, 0], output[:, 1:], contraction_pullback(x, by_y))

    def _encode(self, y: Tensor) -> Tensor:
        return torch.cat([y, frequency_encoding(y, self.frequencies)], dim=-1)


class ColorField(_Stack):
    """Colours (N, 3) in (0, 1) from points, view directions, normals and features ("idr" mode).

    Args:
        hidden_layers, hidden_width: 4 and 256 in the reference.
        frequencies: octaves of the view direction's encoding (the raw direction is left out).
        generator: CPU generator of the initial weights; None = torch's global one.
    """

    def __init__(
        self,
        *,
        hidden_layers: int = 4,
        hidden_width: int = 256,
        feature_width: int = 256,
        frequencies: int = 4,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.frequencies = frequencies
        widths = [6 + 6 * frequencies + feature_width] + [hidden_width] * hidden_layers + [3]
        for fan_in, fan_out in pairwise(widths):
            linear = init_linear_(nn.Linear(fan_in, fan_out), generator)
            self.append(linear.weight.detach(), linear.bias.detach())

    def forward(
        self,
        x: Tensor,
        directions: Tensor,
        field: FieldSample,
        layers: Sequence[DenseLayer] | None = None,
    ) -> Tensor:
        """Points and unit view directions (N, 3), normalised frame -> RGB (N, 3)."""
        layers = self.dense_layers() if layers is None else layers
        view = frequency_encoding(directions, self.frequencies)
        hidden = torch.cat([x, view, field.gradient, field.features], dim=-1)
        for weight, bias in layers[:-1]:
            hidden = torch.addmm(bias, hidden, weight.t()).relu_()
        weight, bias = layers[-1]
        return torch.sigmoid(torch.addmm(bias, hidden, weight.t()))


class Variance(nn.Module):
    """NeuS' single learned sharpness: ``inv_s = exp(10 v)``, the inverse width of the surface."""

    def __init__(self, init: float = 0.3) -> None:
        super().__init__()
        self.variance = nn.Parameter(torch.tensor(init))

    def forward(self) -> Tensor:
        """inv_s, a positive scalar."""
        return torch.exp(10 * self.variance).clip(*_INV_S_RANGE)


def _hidden_init(
    rows: int, columns: int, silent_columns: int, generator: torch.Generator | None
) -> DenseLayer:
    """Geometric initialisation of a hidden layer (Atzmon and Lipman, "SAL", 2020)."""
    weight = torch.empty(rows, columns).normal_(0, math.sqrt(2 / rows), generator=generator)
    if silent_columns:
        weight[:, -silent_columns:] = 0
    return weight, torch.zeros(rows)


def _output_init(
    rows: int, columns: int, radius: float, generator: torch.Generator | None
) -> DenseLayer:
    """Last layer of the geometric initialisation: about ``|x| - radius`` in every output."""
    mean = math.sqrt(math.pi / columns)
    weight = torch.empty(rows, columns).normal_(mean, 1e-4, generator=generator)
    return weight, torch.full((rows,), -radius)
