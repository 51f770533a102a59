"""The distance network with its normals, differentiated by hand.

Forward: the layers, then the reverse sweep that gives the distance's gradient by the encoded point.
Backward: both of these again in reverse. Autograd does the same products; written out, the
elementwise work between them happens in place and nothing is kept that is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SOFTPLUS_BETA = 100.0
_SKIP_SCALE = math.sqrt(0.5)


class _Pass(NamedTuple):
    """What a forward pass leaves for the backward one, layer by layer.

    Attributes:
        inputs: what a layer multiplies (N, in), the last one included.
        slopes: derivatives of the activations (N, out).
        before: gradient of the distance by a layer's output before activation (N, out).
    """

    inputs: list[Tensor]
    slopes: list[Tensor]
    before: list[Tensor]


def softplus_with_slope(a: Tensor) -> tuple[Tensor, Tensor]:
    """softplus with beta 100 and its derivative; overwrites `a`.

    ``relu(a) - log(max(s, 1 - s)) / 100`` with ``s = sigmoid(100 a)`` costs half of torch's own and
    agrees to 1e-9.
    """
    slope = torch.mul(a, SOFTPLUS_BETA).sigmoid_()
    larger = torch.rsub(slope, 1)
    torch.maximum(slope, larger, out=larger)
    return a.relu_().add_(larger.log_(), alpha=-1 / SOFTPLUS_BETA), slope


class SdfCore(torch.autograd.Function):
    """Encoded points (N, E) → output (N, 1 + F), and the distance's gradient by them (N, E).

    Arguments after the points: the layer that the points enter again, then weights and biases of
    all layers in turn.
    """

    @staticmethod
    def forward(ctx: Any, encoded: Tensor, skip_layer: int, *flat: Tensor) -> tuple[Tensor, Tensor]:
        """See the class."""
        weights, biases = flat[::2], flat[1::2]
        width = encoded.shape[1]
        inputs, slopes = [encoded], []
        for i, (weight, bias) in enumerate(zip(weights[:-1], biases[:-1], strict=True)):
            value, slope = softplus_with_slope(torch.addmm(bias, inputs[i], weight.t()))
            slopes.append(slope)
            if i + 1 == skip_layer:
                value = torch.cat([value, encoded], dim=1).mul_(_SKIP_SCALE)
            inputs.append(value)
        output = torch.addmm(biases[-1], inputs[-1], weights[-1].t())

        gradient, before = weights[-1][:1], []
        through_skip: Tensor | None = None
        for i in range(len(slopes) - 1, -1, -1):
            before.append(gradient * slopes[i])
            gradient = before[-1] @ weights[i]
            if i == skip_layer:
                gradient.mul_(_SKIP_SCALE)
                through_skip = gradient[:, -width:]
                gradient = gradient[:, :-width]
        by_encoded = gradient if through_skip is None else gradient + through_skip
        ctx.skip_layer = skip_layer
        # Saved the official way, so that recomputing chunks in the backward pass frees them.
        ctx.save_for_backward(*weights, *inputs, *slopes, *before[::-1])
        return output, by_encoded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: Tensor, by_gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients by the points, weights and biases."""
        weights, passed = _unpacked(ctx.saved_tensors)
        skip = ctx.skip_layer
        adjoints, extra, last_row = _sweep_backward(by_gradient, weights, passed, skip)
        by_weights: list[Tensor] = [by_output.t() @ passed.inputs[-1]]
        by_biases: list[Tensor] = [by_output.sum(0)]
        by_weights[0][0] += last_row
        by_encoded: Tensor | None = None
        by_hidden = by_output @ weights[-1]
        for i in range(len(weights) - 2, -1, -1):
            if i + 1 == skip:
                by_hidden.mul_(_SKIP_SCALE)
                width = passed.inputs[0].shape[1]
                by_encoded = by_hidden[:, -width:]
                by_hidden = by_hidden[:, :-width]
            by_a = by_hidden.mul_(passed.slopes[i]).add_(extra[i], alpha=SOFTPLUS_BETA)
            by_weight = by_a.t() @ passed.inputs[i]
            by_weights.append(by_weight.addmm_(passed.before[i].t(), adjoints[i]))
            by_biases.append(by_a.sum(0))
            if i > 0 or ctx.needs_input_grad[0]:
                by_hidden = by_a @ weights[i]
        flat = [
            tensor
            for pair in zip(reversed(by_weights), reversed(by_biases), strict=True)
            for tensor in pair
        ]
        if not ctx.needs_input_grad[0]:
            return (None, None, *flat)
        return (by_hidden if by_encoded is None else by_hidden + by_encoded, None, *flat)


def _unpacked(saved: Sequence[Tensor]) -> tuple[Sequence[Tensor], _Pass]:
    """Weights, and what `forward` saved after them."""
    layers = (len(saved) + 2) // 4  # one more weight and input than slopes and gradients
    ends = [layers, 2 * layers, 3 * layers - 1]
    weights, *parts = (
        list(saved[begin:end]) for begin, end in zip([0, *ends], [*ends, len(saved)], strict=True)
    )
    return weights, _Pass(*parts)


def _sweep_backward(
    by_gradient: Tensor, weights: Sequence[Tensor], passed: _Pass, skip_layer: int
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Backward of the reverse sweep, which runs forward through the layers.

    Returns:
        By layer: what its weight was multiplied with (N, in), and a hundredth of the gradient by
        its output before activation that comes through the slope (N, out); last, the gradient by
        the distance's row of the output layer (in,).
    """
    adjoints, extra = [], []
    adjoint = by_gradient
    for i, slope in enumerate(passed.slopes):
        if i == skip_layer:
            adjoint = torch.cat([adjoint, by_gradient], dim=1).mul_(_SKIP_SCALE)
        adjoints.append(adjoint)
        by_before = adjoint @ weights[i].t()
        # The slope's derivative is 100 slope (1 - slope), and `before` has the slope in it already.
        extra.append(torch.rsub(slope, 1).mul_(by_before).mul_(passed.before[i]))
        adjoint = by_before.mul_(slope)
    return adjoints, extra, adjoint.sum(0)
