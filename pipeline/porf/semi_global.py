"""Smooth depth maps: costs of depths are summed along lines before the cheapest is chosen.

Where a surface has no texture, windows correlate at any depth. Summed costs, with a price on jumps
of depth from pixel to pixel, let textured surroundings decide.

Source: Hirschmüller, "Stereo processing by semiglobal matching and mutual information" (TPAMI
2008), section 2.2, along rows and columns in both directions.
"""

import torch
from torch import Tensor

_SLANT = 0.005
"""Price of one step of depth, as a share of that of a jump: slanted surfaces take many."""
_EDGE = 30.0
"""A jump is worth half where grey changes by a thirtieth of its range: depth jumps there too."""
_LEAST_JUMP = 0.15
"""Share of a jump's price that stays at the strongest edges."""


def aggregated(cost: Tensor, grey: Tensor, jump: float) -> Tensor:
    """Costs (D, H, W) of depths, summed along the four directions.

    Args:
        cost: (D, H, W), in [0, 1].
        grey: (H, W) in [0, 1], whose edges make jumps cheaper.
        jump: price of a jump of depth between neighbours where grey is even.
    """
    rows, columns = cost.permute(1, 2, 0), cost.permute(2, 1, 0)
    down = _both_ways(rows.contiguous(), grey, jump)
    across = _both_ways(columns.contiguous(), grey.T, jump)
    return down.permute(2, 0, 1) + across.permute(2, 1, 0)


def _both_ways(cost: Tensor, grey: Tensor, jump: float) -> Tensor:
    """Sum over both directions of the first dimension; cost (L, N, D), grey (L, N)."""
    step = (grey[1:] - grey[:-1]).abs()
    price = jump * (1 / (1 + _EDGE * step)).clamp(min=_LEAST_JUMP)
    forward = _along(cost, price, jump * _SLANT)
    backward = _along(cost.flip(0), price.flip(0), jump * _SLANT)
    return forward + backward.flip(0)


def _along(cost: Tensor, price: Tensor, slant: float) -> Tensor:
    """Least costs (L, N, D) of paths that come along the first dimension (equation 13)."""
    total = torch.empty_like(cost)
    before = total[0] = cost[0]
    for k in range(1, len(cost)):
        least = before.min(dim=1, keepdim=True).values
        way = torch.minimum(before, least + price[k - 1, :, None])
        way[:, 1:] = torch.minimum(way[:, 1:], before[:, :-1] + slant)
        way[:, :-1] = torch.minimum(way[:, :-1], before[:, 1:] + slant)
        # without what all depths share, sums stay small
        torch.add(cost[k], way - least, out=total[k])
        before = total[k]
    return total
