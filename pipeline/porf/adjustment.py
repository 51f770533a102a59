"""Bundle adjustment on epipolar distances: all poses, and a shared calibration, without points.

Gauss-Newton with Levenberg's damping on the signed symmetric epipolar distances of all matches,
weighted by a Cauchy loss. A match's distance depends on its pair's fundamental matrix alone, so the
normal equations need nine numbers a match and one small Jacobian a pair: seconds on a CPU, where
gradient descent creeps along the valley in which principal point and rotations trade places.

Source: Hartley and Zisserman, "Multiple View Geometry", 11.4 (distances) and appendix 6 (damping).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from pipeline.porf.epipolar import MatchTable, fundamental_matrices
from pipeline.porf.so3 import so3_exp

_CAUCHY_PX = 1.0
_FAR_PX = 20.0
_MIN_LINE_NORM_SQUARED = 1e-12
_CHUNK = 65_536
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e-9, 1e6
_WEAK_DAMPING = 1e-7
_ENOUGH = 1e-5
"""Relative gain of an iteration below which the adjustment ends."""
_POSE, _CAMERA = 6, 3
_FOCAL_PRIOR, _CENTRE_PRIOR = 0.1, 0.1
"""Standard deviations of the calibration's change: logarithm of the focal length, and the principal
point as a share of the focal length."""


@dataclass(frozen=True)
class Adjusted:
    """Result of an adjustment.

    Attributes:
        c2w: (V, 4, 4) float64.
        K: (V, 3, 3) float64.
        cost_before, cost_after: mean Cauchy loss of the distances, squared pixels.
        iterations: accepted ones.
    """

    c2w: Tensor
    K: Tensor
    cost_before: float
    cost_after: float
    iterations: int


@torch.no_grad()
def adjust(
    table: MatchTable, c2w: Tensor, K: Tensor, calibrate: bool, iterations: int = 30
) -> Adjusted:
    """Minimise the epipolar distances of all matches over the poses, on the CPU in float64.

    The result's frame is the one in which the poses changed least; align it where scale matters.

    Args:
        c2w: (V, 4, 4) starting poses.
        K: (V, 3, 3) intrinsics of the matches' pixels.
        calibrate: also change focal length and principal point, by the same share and shift for all
            views, held near the given ones by a weak prior.
    """
    table = _on_cpu(table)
    poses, intrinsics = c2w.double().cpu(), K.double().cpu()
    change = torch.zeros(_CAMERA, dtype=torch.float64)
    given = intrinsics
    cost = before = _cost(table, poses, intrinsics) + _prior(change, table.num_matches)
    damping, accepted = _FIRST_DAMPING, 0
    for _ in range(iterations):
        H, g = _normal_equations(table, poses, intrinsics, change, calibrate)
        improved = False
        while not improved and damping <= _MOST_DAMPING:
            scale = H.diagonal().clamp(min=1e-9 * float(H.diagonal().max()))
            step = torch.linalg.solve(H + damping * torch.diag(scale), -g)
            new_poses = _moved(poses, step[: _POSE * len(poses)].view(-1, _POSE))
            new_change = change + step[_POSE * len(poses) :] if calibrate else change
            new_intrinsics = _recalibrated(given, new_change)
            new_cost = _cost(table, new_poses, new_intrinsics) + _prior(
                new_change, table.num_matches
            )
            improved = new_cost < cost
            damping = damping * 0.1 if improved else damping * 5
        if not improved:
            break
        gain = (cost - new_cost) / cost
        poses, intrinsics, change, cost = new_poses, new_intrinsics, new_change, new_cost
        damping = max(damping, _LEAST_DAMPING)
        accepted += 1
        # Little gain under strong damping may only mean short steps along a flat valley.
        if gain < _ENOUGH and damping <= _WEAK_DAMPING:
            break
    return Adjusted(poses, intrinsics, before, cost, accepted)


def _on_cpu(table: MatchTable) -> MatchTable:
    moved = {name: value.cpu() for name, value in vars(table).items()}
    return MatchTable(**{**moved, "points_px": moved["points_px"].double()})


def _prior(change: Tensor, matches: int) -> float:
    deviations = torch.tensor([_FOCAL_PRIOR, _CENTRE_PRIOR, _CENTRE_PRIOR], dtype=change.dtype)
    return float(((change / deviations) ** 2).sum()) / max(1, matches)


def _recalibrated(K: Tensor, change: Tensor) -> Tensor:
    """K (..., 3, 3) with focal lengths times exp(change[0]), and the principal point moved by
    change[1:] focal lengths."""
    scaled = K.clone()
    scaled[..., :2, :2] = K[..., :2, :2] * torch.exp(change[0])
    scaled[..., :2, 2] = K[..., :2, 2] + change[1:] * K[..., 0, 0, None]
    return scaled


def _moved(c2w: Tensor, step: Tensor) -> Tensor:
    """Poses (V, 4, 4) turned by step[:, :3] in the world and shifted by step[:, 3:]."""
    moved = c2w.clone()
    moved[:, :3, :3] = so3_exp(step[:, :3]) @ c2w[:, :3, :3]
    moved[:, :3, 3] = c2w[:, :3, 3] + step[:, 3:]
    return moved


def _distances(table: MatchTable, F: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    """Signed distances (M,) of some matches, and their derivatives (M, 9) after F's entries."""
    per_match = F.reshape(-1, 9)[table.pair_of_match[rows]].view(-1, 3, 3)
    x1, x2 = (_homogeneous(table.points_px[rows, k : k + 2]) for k in (0, 2))
    line2 = (per_match @ x1[..., None])[..., 0]
    line1 = (per_match.transpose(1, 2) @ x2[..., None])[..., 0]
    norm1 = (line1[:, :2] ** 2).sum(1).clamp(min=_MIN_LINE_NORM_SQUARED)
    norm2 = (line2[:, :2] ** 2).sum(1).clamp(min=_MIN_LINE_NORM_SQUARED)
    scale = (1 / norm1 + 1 / norm2).sqrt()
    residual = (x2 * line2).sum(1)
    normal1 = torch.cat([line1[:, :2], torch.zeros_like(line1[:, :1])], dim=1)
    normal2 = torch.cat([line2[:, :2], torch.zeros_like(line2[:, :1])], dim=1)
    by_residual = scale[:, None, None] * x2[:, :, None] * x1[:, None, :]
    # Without the norms' part F's magnitude, which means nothing, would seem to matter.
    by_norms = x2[:, :, None] * (normal1 / norm1[:, None] ** 2)[:, None, :]
    by_norms = by_norms + (normal2 / norm2[:, None] ** 2)[:, :, None] * x1[:, None, :]
    slope = by_residual - (residual / scale)[:, None, None] * by_norms
    return residual * scale, slope.reshape(-1, 9)


def _homogeneous(xy_px: Tensor) -> Tensor:
    return torch.cat([xy_px, torch.ones_like(xy_px[:, :1])], dim=1)


def _chunks(count: int) -> list[slice]:
    return [slice(begin, begin + _CHUNK) for begin in range(0, count, _CHUNK)]


def _cost(table: MatchTable, c2w: Tensor, K: Tensor) -> float:
    """Mean Cauchy loss, squared pixels; distances are cut off far away."""
    F = fundamental_matrices(table.pair_ref, table.pair_src, c2w, K)
    total = 0.0
    for rows in _chunks(table.num_matches):
        distance, _ = _distances(table, F, rows)
        total += float(torch.log1p((distance.clamp(-_FAR_PX, _FAR_PX) / _CAUCHY_PX) ** 2).sum())
    return _CAUCHY_PX**2 * total / max(1, table.num_matches)


def _normal_equations(
    table: MatchTable, c2w: Tensor, K: Tensor, change: Tensor, calibrate: bool
) -> tuple[Tensor, Tensor]:
    """Gauss-Newton's H (N, N) and gradient g (N,) over 6 numbers a view, then 3 of calibration."""
    F = fundamental_matrices(table.pair_ref, table.pair_src, c2w, K)
    pairs = table.num_pairs
    A = torch.zeros(pairs, 81, dtype=F.dtype)
    b = torch.zeros(pairs, 9, dtype=F.dtype)
    for rows in _chunks(table.num_matches):
        distance, slope = _distances(table, F, rows)
        weight = 1 / (1 + (distance / _CAUCHY_PX) ** 2)
        weight = torch.where(distance.abs() < _FAR_PX, weight, torch.zeros_like(weight))
        weighted = slope * weight[:, None]
        owner = table.pair_of_match[rows]
        A.index_add_(0, owner, (weighted[:, :, None] * slope[:, None, :]).reshape(-1, 81))
        b.index_add_(0, owner, weighted * distance[:, None])
    J = _pair_jacobians(table, c2w, K)  # (P, 9, 15)
    count = max(1, table.num_matches)
    H_pair = J.transpose(1, 2) @ A.view(-1, 9, 9) @ J / count
    g_pair = (J.transpose(1, 2) @ b[..., None])[..., 0] / count
    return _assembled(table, H_pair, g_pair, len(c2w), change, calibrate)


def _pair_jacobians(table: MatchTable, c2w: Tensor, K: Tensor) -> Tensor:
    """Derivatives (P, 9, 15) of F after the reference's pose, the source's, and the calibration."""
    index = torch.tensor([0]), torch.tensor([1])

    def flat_F(parameters: Tensor, poses: Tensor, intrinsics: Tensor) -> Tensor:
        moved = _moved(poses, parameters[: 2 * _POSE].view(2, _POSE))
        recalibrated = _recalibrated(intrinsics, parameters[2 * _POSE :])
        return fundamental_matrices(*index, moved, recalibrated).reshape(9)

    poses = torch.stack([c2w[table.pair_ref], c2w[table.pair_src]], dim=1)
    intrinsics = torch.stack([K[table.pair_ref], K[table.pair_src]], dim=1)
    zero = torch.zeros(len(poses), 2 * _POSE + _CAMERA, dtype=c2w.dtype)
    jacobian: Tensor = vmap(jacfwd(flat_F))(zero, poses, intrinsics)
    return jacobian


def _assembled(
    table: MatchTable, H_pair: Tensor, g_pair: Tensor, views: int, change: Tensor, calibrate: bool
) -> tuple[Tensor, Tensor]:
    total = _POSE * views + _CAMERA
    offsets = torch.arange(_POSE)
    own = [table.pair_ref[:, None] * _POSE + offsets, table.pair_src[:, None] * _POSE + offsets]
    shared = (_POSE * views + torch.arange(_CAMERA)).expand(table.num_pairs, _CAMERA)
    index = torch.cat([*own, shared], dim=1)
    cells = index[:, :, None] * total + index[:, None, :]
    H = torch.zeros(total * total, dtype=H_pair.dtype)
    H = H.index_add(0, cells.reshape(-1), H_pair.reshape(-1)).view(total, total)
    g = torch.zeros(total, dtype=g_pair.dtype)
    g = g.index_add(0, index.reshape(-1), g_pair.reshape(-1))
    if not calibrate:
        return H[:-_CAMERA, :-_CAMERA], g[:-_CAMERA]
    deviations = torch.tensor([_FOCAL_PRIOR, _CENTRE_PRIOR, _CENTRE_PRIOR], dtype=H.dtype)
    information = 1 / deviations**2 / max(1, table.num_matches)
    H[-_CAMERA:, -_CAMERA:] += torch.diag(information)
    g[-_CAMERA:] += information * change
    return H, g
