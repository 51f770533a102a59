"""Batched exponential and logarithm of SO(3), differentiable everywhere that training goes.

Rotation vectors ("axis-angle") have unit radians: direction = axis, length = angle.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Below this squared angle the closed forms are replaced by their Taylor series. The terms left out
# are of order angle^6 / 5040, below float64's resolution here.
_SMALL_ANGLE_SQUARED = 1e-4


def skew(vector: Tensor) -> Tensor:
    """Cross-product matrices: (..., 3) -> (..., 3, 3) with ``skew(a) @ b == cross(a, b)``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    rows = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1)
    return rows.reshape(*vector.shape[:-1], 3, 3)


def so3_exp(rotvec: Tensor) -> Tensor:
    """Rodrigues' formula: rotation vectors (..., 3) in radians -> rotation matrices (..., 3, 3).

    ``R = I + a [r]x + b (r r^T - |r|^2 I)`` with ``a = sin(t)/t`` and ``b = (1 - cos(t))/t^2``.
    Values and gradients are finite for every finite input, zero included.
    """
    angle_squared = (rotvec * rotvec).sum(-1)
    small = angle_squared < _SMALL_ANGLE_SQUARED
    # `where` also differentiates the branch that it drops, so that one must stay finite.
    safe_squared = torch.where(small, torch.ones_like(angle_squared), angle_squared)
    angle = safe_squared.sqrt()
    series_a = 1 - angle_squared / 6 + angle_squared**2 / 120
    series_b = 0.5 - angle_squared / 24 + angle_squared**2 / 720
    a = torch.where(small, series_a, torch.sin(angle) / angle)
    # (1 - cos t) cancels badly for small t; the half-angle form does not.
    b = torch.where(small, series_b, 2 * (torch.sin(angle / 2) / angle) ** 2)

    identity = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    outer = rotvec[..., :, None] * rotvec[..., None, :]
    symmetric = outer - angle_squared[..., None, None] * identity
    return identity + a[..., None, None] * skew(rotvec) + b[..., None, None] * symmetric


def rotation_to_quaternion(rotation: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) -> unit quaternions (..., 4), order w x y z, w >= 0.

    Of Shepperd's four equivalent formulas the best conditioned is taken for each matrix, so the
    result is accurate for all angles, half a turn included.
    """
    m = rotation
    diagonal = torch.diagonal(m, dim1=-2, dim2=-1)
    xx, yy, zz = diagonal.unbind(-1)
    trace = xx + yy + zz
    squares = torch.stack([trace, xx, yy, zz], -1) * 2 + (1 - trace)[..., None]  # = 4 w^2, 4 x^2, …
    best = squares.argmax(-1, keepdim=True)

    wx, wy, wz = (
        m[..., 2, 1] - m[..., 1, 2],
        m[..., 0, 2] - m[..., 2, 0],
        m[..., 1, 0] - m[..., 0, 1],
    )
    xy, xz, yz = (
        m[..., 0, 1] + m[..., 1, 0],
        m[..., 0, 2] + m[..., 2, 0],
        m[..., 1, 2] + m[..., 2, 1],
    )
    w2, x2, y2, z2 = squares.unbind(-1)
    # Row k is the quaternion times 4 q_k.
    candidates = torch.stack(
        [
            torch.stack([w2, wx, wy, wz], -1),
            torch.stack([wx, x2, xy, xz], -1),
            torch.stack([wy, xy, y2, yz], -1),
            torch.stack([wz, xz, yz, z2], -1),
        ],
        dim=-2,
    )
    chosen = torch.gather(candidates, -2, best[..., None].expand(*best.shape[:-1], 1, 4))
    quaternion = torch.nn.functional.normalize(chosen.squeeze(-2), dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def so3_log(rotation: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) -> rotation vectors (..., 3), radians, length in [0, pi].

    Differentiable at the identity and up to pi, where the sign of the axis becomes ambiguous.
    """
    quaternion = rotation_to_quaternion(rotation)
    w, v = quaternion[..., :1], quaternion[..., 1:]
    length_squared = (v * v).sum(-1, keepdim=True)
    small = length_squared < _SMALL_ANGLE_SQUARED
    length = torch.where(small, torch.ones_like(length_squared), length_squared).sqrt()
    safe_w = torch.where(small, w, torch.ones_like(w))
    # 2 atan(x)/x / w with x = |v|/w, as a series near the identity.
    ratio_squared = length_squared / safe_w**2
    series = (2 / safe_w) * (1 - ratio_squared / 3 + ratio_squared**2 / 5 - ratio_squared**3 / 7)
    factor = torch.where(small, series, 2 * torch.atan2(length, w) / length)
    return factor * v
