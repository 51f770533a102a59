"""Multi-resolution feature grid with values and analytic derivatives.

Source: Müller et al., "Instant Neural Graphics Primitives" (SIGGRAPH 2022), section 3: levels of
trilinear grids; levels with more vertices than table entries are hashed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.porf import grid_kernels
from pipeline.porf.compiled import arrays, lock, serves


@dataclass(frozen=True)
class GridShape:
    """Levels of a grid: vertices along an axis, first table row, rows, and channels of a row."""

    resolution: tuple[int, ...]
    start: tuple[int, ...]
    entries: tuple[int, ...]
    channels: int

    def first(self, levels: int) -> "GridShape":
        """The coarsest `levels` levels."""
        return GridShape(
            self.resolution[:levels], self.start[:levels], self.entries[:levels], self.channels
        )

    def kernel_arguments(self) -> tuple[Any, ...]:
        """As the compiled kernels take them."""
        arrays = (np.asarray(a, np.int64) for a in (self.resolution, self.start, self.entries))
        return (*arrays, tuple(range(self.channels)))


class HashGrid(nn.Module):
    """Features of points in the cube [-1, 1]³; outside it the cube's border is continued.

    Args:
        resolutions: vertices along an axis, one entry a level, coarse to fine.
        channels: features a level.
        log2_entries: a level has at most 2^this entries.
        generator: source of the initial features, uniform in ±1e-4.
    """

    table: nn.Parameter

    def __init__(
        self,
        resolutions: Sequence[int],
        channels: int,
        log2_entries: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        entries = tuple(min(r**3, 2**log2_entries) for r in resolutions)
        start = tuple(sum(entries[:level]) for level in range(len(entries)))
        self.shape = GridShape(tuple(resolutions), start, entries, channels)
        table = torch.empty(sum(entries), channels)
        self.table = nn.Parameter(table.uniform_(-1e-4, 1e-4, generator=generator))

    @property
    def levels(self) -> int:
        """Number of levels."""
        return len(self.shape.resolution)

    @property
    def width(self) -> int:
        """Number of features: levels × channels."""
        return self.levels * self.shape.channels

    def forward(self, x: Tensor, active_levels: int | None = None) -> Tensor:
        """Features (N, width) at points x (N, 3); inactive (fine) levels are zero."""
        return self._pad(_Interpolate.apply(self.table, x, self._shape(active_levels), False)[0])

    def with_jacobian(self, x: Tensor, active_levels: int | None = None) -> tuple[Tensor, Tensor]:
        """Features (N, width) and their derivatives (3, N, width) after x.

        The derivatives carry gradients to the features, not to x: within a cell they hardly
        change, and across cells they jump.
        """
        shape = self._shape(active_levels)
        value, jacobian = _Interpolate.apply(self.table, x, shape, True)
        return self._pad(value), self._pad(jacobian)

    def _shape(self, active_levels: int | None) -> GridShape:
        if active_levels is None or active_levels >= self.levels:
            return self.shape
        return self.shape.first(active_levels)

    def _pad(self, features: Tensor) -> Tensor:
        missing = self.width - features.shape[-1]
        return nn.functional.pad(features, (0, missing)) if missing else features


class _Interpolate(torch.autograd.Function):
    """Trilinear interpolation with derivatives; compiled kernels on a CPU, torch elsewhere.

    The kernels add a parameter's gradient to `.grad` themselves: a step evaluates the grid several
    times, and a fresh table of zeros for each, filled and then added, costs more than its entries.
    """

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, table: Tensor, x: Tensor, shape: GridShape, with_jacobian: bool
    ) -> tuple[Tensor, Tensor]:
        compiled = serves(table)
        run = _compiled_interpolate if compiled else _torch_interpolate
        value, jacobian = run(table, x, shape, with_jacobian or x.requires_grad)
        ctx.save_for_backward(x, jacobian if x.requires_grad else value.new_empty(0))
        ctx.shape, ctx.with_jacobian, ctx.compiled = shape, with_jacobian, compiled
        ctx.table = table
        return value, jacobian if with_jacobian else value.new_empty(0)

    @staticmethod
    def backward(ctx, grad_value: Tensor, grad_jacobian: Tensor):  # type: ignore[no-untyped-def]
        x, jacobian = ctx.saved_tensors
        grad_table = grad_x = None
        if ctx.needs_input_grad[0]:
            in_place = ctx.compiled and ctx.table.is_leaf
            grad_table = _gradient_of(ctx.table) if in_place else torch.zeros_like(ctx.table)
            run = _compiled_scatter if ctx.compiled else _torch_scatter
            run(x, ctx.shape, grad_value, grad_jacobian if ctx.with_jacobian else None, grad_table)
            grad_table = None if in_place else grad_table
        if ctx.needs_input_grad[1]:
            grad_x = torch.einsum("knc,nc->nk", jacobian, grad_value)
        return grad_table, grad_x, None, None


def _gradient_of(table: Tensor) -> Tensor:
    """The gradient that a table has so far, or zeros that become it."""
    if table.grad is None:
        table.grad = torch.zeros_like(table)
    return table.grad


def _compiled_interpolate(
    table: Tensor, x: Tensor, shape: GridShape, with_jacobian: bool
) -> tuple[Tensor, Tensor]:
    width = len(shape.resolution) * shape.channels
    value = table.new_empty(len(x), width)
    arguments = (*arrays(table, x), *shape.kernel_arguments())
    jacobian = table.new_empty((3, len(x), width) if with_jacobian else 0)
    with lock:
        if with_jacobian:
            grid_kernels.interpolate(*arguments, value.numpy(), jacobian.numpy())
        else:
            grid_kernels.interpolate_value(*arguments, value.numpy())
    return value, jacobian


def _compiled_scatter(
    x: Tensor, shape: GridShape, grad_value: Tensor, grad_jacobian: Tensor | None, out: Tensor
) -> None:
    arguments = (*arrays(x), *shape.kernel_arguments(), *arrays(grad_value))
    with lock:
        if grad_jacobian is None:
            grid_kernels.scatter_value(*arguments, out.numpy())
        else:
            grid_kernels.scatter(*arguments, *arrays(grad_jacobian), out.numpy())


def _cells(x: Tensor, shape: GridShape) -> tuple[Tensor, Tensor, Tensor]:
    """Corner rows (8, L, N), corner 4 dx + 2 dy + dz; fractions (L, N, 3); cells a unit length."""
    # Filled on the device: a tensor of the host's numbers would make the host wait.
    last = torch.stack([x.new_full((1, 1), float(n - 1)) for n in shape.resolution])
    scaled = (x.detach().clamp(-1, 1) + 1) * (last * 0.5)
    # A NaN gets the first cell here and stays NaN as a fraction: no row outside the table.
    cell = torch.minimum(scaled.floor(), last - 1).nan_to_num(0.0)
    rows = [_corner_rows(cell[level].long(), shape, level) for level in range(len(cell))]
    return torch.stack(rows, dim=1), scaled - cell, last * 0.5


def _corner_rows(cell: Tensor, shape: GridShape, level: int) -> Tensor:
    """Table rows (8, N) of the corners of cells (N, 3) of one level."""
    x, y, z = cell.unbind(1)
    resolution, start, entries = shape.resolution[level], shape.start[level], shape.entries[level]
    corners = [(x + dx, y + dy, z + dz) for dx in (0, 1) for dy in (0, 1) for dz in (0, 1)]
    if resolution**3 <= entries:
        return torch.stack([(a * resolution + b) * resolution + c + start for a, b, c in corners])
    prime_y, prime_z = grid_kernels.PRIME_Y, grid_kernels.PRIME_Z
    hashed = [(a ^ (b * prime_y) ^ (c * prime_z)) & (entries - 1) for a, b, c in corners]
    return torch.stack(hashed) + start


def _torch_interpolate(
    table: Tensor, x: Tensor, shape: GridShape, with_jacobian: bool
) -> tuple[Tensor, Tensor]:
    rows, fraction, per_unit = _cells(x, shape)
    corner_values = table.index_select(0, rows.reshape(-1)).view(8, *rows.shape[1:], -1)
    weights = _corner_weights(fraction)
    value = torch.einsum("qln,qlnc->nlc", weights, corner_values).flatten(1)
    if not with_jacobian:
        return value, value.new_empty(0)
    slopes = _corner_slopes(fraction) * per_unit
    return value, torch.einsum("qlnk,qlnc->knlc", slopes, corner_values).flatten(2)


def _torch_scatter(
    x: Tensor, shape: GridShape, grad_value: Tensor, grad_jacobian: Tensor | None, out: Tensor
) -> None:
    rows, fraction, per_unit = _cells(x, shape)
    levels = len(shape.resolution)
    by_level = grad_value.unflatten(1, (levels, shape.channels))
    grad = torch.einsum("qln,nlc->qlnc", _corner_weights(fraction), by_level)
    if grad_jacobian is not None:
        slopes = _corner_slopes(fraction) * per_unit
        by_level = grad_jacobian.unflatten(2, (levels, shape.channels))
        grad = grad + torch.einsum("qlnk,knlc->qlnc", slopes, by_level)
    out.index_add_(0, rows.reshape(-1), grad.reshape(-1, shape.channels))


def _axis_weights(fraction: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(1 - f, f) for f in fraction.unbind(-1)]


def _corner_weights(fraction: Tensor) -> Tensor:
    """Trilinear weights (8, L, N) of the corners."""
    wx, wy, wz = _axis_weights(fraction)
    return torch.stack([a * b * c for a in wx for b in wy for c in wz])


def _corner_slopes(fraction: Tensor) -> Tensor:
    """Derivatives (8, L, N, 3) of the corner weights after the position inside the cell."""
    wx, wy, wz = _axis_weights(fraction)
    signs = (-1.0, 1.0)
    along_x = torch.stack([s * b * c for s in signs for b in wy for c in wz])
    along_y = torch.stack([s * a * c for a in wx for s in signs for c in wz])
    along_z = torch.stack([s * a * b for a in wx for b in wy for s in signs])
    return torch.stack([along_x, along_y, along_z], dim=-1)
