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
_NARROWING = 3.0
_FAR = 20.0  # widths of the loss
_MIN_LINE_NORM_SQUARED = 1e-12
_CHUNK = 65_536
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e-9, 1e6
_WEAK_DAMPING = 1e-7
_ENOUGH = 1e-5
"""Relative gain of an iteration below which the adjustment ends."""
_POSE, _CAMERA = 6, 3
_PRIOR = (0.1, 0.1, 0.1)
"""Standard deviations of the calibration's change: logarithm of the focal length, and the principal
point's x and y as shares of the focal length."""


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

    The Cauchy loss starts as wide as the given cameras are wrong and narrows to one pixel: a narrow
    one would take what bad cameras misplace for wrong matches.

    Args:
        c2w: (V, 4, 4) starting poses.
        K: (V, 3, 3) intrinsics of the matches' pixels.
        calibrate: also change focal length and principal point, by the same share and shift for all
            views, held near the given ones by a weak prior.
        iterations: at most, for each width of the loss.
    """
    table = _on_cpu(table)
    state = _State(c2w.double().cpu(), K.double().cpu(), torch.zeros(_CAMERA).double())
    given = state.K
    before = _cost(table, state, _CAUCHY_PX)
    accepted = 0
    for width_px in _widths(table, state):
        state, done = _descend(table, state, given, calibrate, width_px, iterations)
        accepted += done
    return Adjusted(state.c2w, state.K, before, _cost(table, state, _CAUCHY_PX), accepted)


@dataclass(frozen=True)
class _State:
    """Poses (V, 4, 4), intrinsics (V, 3, 3), and the calibration's change (3,) that led to them."""

    c2w: Tensor
    K: Tensor
    change: Tensor


def _widths(table: MatchTable, state: _State) -> list[float]:
    """Widths of the loss in pixels, from the median distance down to `_CAUCHY_PX`."""
    F = fundamental_matrices(table.pair_ref, table.pair_src, state.c2w, state.K)
    parts = [_distances(table, F, rows)[0].abs() for rows in _chunks(table.num_matches)]
    widths = [max(_CAUCHY_PX, float(torch.cat(parts).median()))]
    while widths[-1] > _CAUCHY_PX:
        widths.append(max(_CAUCHY_PX, widths[-1] / _NARROWING))
    return widths


def _descend(
    table: MatchTable,
    state: _State,
    given: Tensor,
    calibrate: bool,
    width_px: float,
    iterations: int,
) -> tuple[_State, int]:
    """Levenberg's steps at one width of the loss; the last state and their number."""
    damping, cost = _FIRST_DAMPING, _cost(table, state, width_px)
    for accepted in range(iterations):
        H, g = _normal_equations(table, state, calibrate, width_px)
        diagonal = H.diagonal().clamp(min=1e-9 * float(H.diagonal().max()))
        while True:
            step = torch.linalg.solve(H + damping * torch.diag(diagonal), -g)
            moved = _stepped(state, step, given, calibrate)
            new_cost = _cost(table, moved, width_px)
            if new_cost < cost:
                break
            damping *= 5
            if damping > _MOST_DAMPING:
                return state, accepted
        damping = max(damping * 0.1, _LEAST_DAMPING)
        gain = (cost - new_cost) / cost
        state, cost = moved, new_cost
        # Little gain under strong damping may only mean short steps along a flat valley.
        if gain < _ENOUGH and damping <= _WEAK_DAMPING:
            return state, accepted + 1
    return state, iterations


def _stepped(state: _State, step: Tensor, given: Tensor, calibrate: bool) -> _State:
    poses = _POSE * len(state.c2w)
    change = state.change + step[poses:] if calibrate else state.change
    moved = _moved(state.c2w, step[:poses].view(-1, _POSE))
    return _State(moved, _recalibrated(given, change), change)


def _on_cpu(table: MatchTable) -> MatchTable:
    moved = {name: value.cpu() for name, value in vars(table).items()}
    return MatchTable(**{**moved, "points_px": moved["points_px"].double()})


def _prior(change: Tensor) -> float:
    return float(((change / torch.tensor(_PRIOR, dtype=change.dtype)) ** 2).sum())


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


def _cost(table: MatchTable, state: _State, width_px: float) -> float:
    """Mean Cauchy loss and prior, squared pixels; distances are cut off far away."""
    F = fundamental_matrices(table.pair_ref, table.pair_src, state.c2w, state.K)
    total, far = 0.0, _FAR * width_px
    for rows in _chunks(table.num_matches):
        distance, _ = _distances(table, F, rows)
        total += float(torch.log1p((distance.clamp(-far, far) / width_px) ** 2).sum())
    return (width_px**2 * total + _prior(state.change)) / max(1, table.num_matches)


def _normal_equations(
    table: MatchTable, state: _State, calibrate: bool, width_px: float
) -> tuple[Tensor, Tensor]:
    """Gauss-Newton's H (N, N) and gradient g (N,) over 6 numbers a view, then 3 of calibration."""
    F = fundamental_matrices(table.pair_ref, table.pair_src, state.c2w, state.K)
    A = F.new_zeros(table.num_pairs, 81)
    b = F.new_zeros(table.num_pairs, 9)
    for rows in _chunks(table.num_matches):
        distance, slope = _distances(table, F, rows)
        weight = 1 / (1 + (distance / width_px) ** 2)
        weight = weight * (distance.abs() < _FAR * width_px)
        weighted = slope * weight[:, None]
        owner = table.pair_of_match[rows]
        A.index_add_(0, owner, (weighted[:, :, None] * slope[:, None, :]).reshape(-1, 81))
        b.index_add_(0, owner, weighted * distance[:, None])
    J = _pair_jacobians(table, state.c2w, state.K)  # (P, 9, 15)
    count = max(1, table.num_matches)
    H_pair = J.transpose(1, 2) @ A.view(-1, 9, 9) @ J / count
    g_pair = (J.transpose(1, 2) @ b[..., None])[..., 0] / count
    return _assembled(table, H_pair, g_pair, state, calibrate)


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
    table: MatchTable, H_pair: Tensor, g_pair: Tensor, state: _State, calibrate: bool
) -> tuple[Tensor, Tensor]:
    views = len(state.c2w)
    total = _POSE * views + _CAMERA
    offsets = torch.arange(_POSE)
    own = [table.pair_ref[:, None] * _POSE + offsets, table.pair_src[:, None] * _POSE + offsets]
    shared = (_POSE * views + torch.arange(_CAMERA)).expand(table.num_pairs, _CAMERA)
    index = torch.cat([*own, shared], dim=1)
    cells = index[:, :, None] * total + index[:, None, :]
    H = H_pair.new_zeros(total * total)
    H = H.index_add(0, cells.reshape(-1), H_pair.reshape(-1)).view(total, total)
    g = g_pair.new_zeros(total).index_add(0, index.reshape(-1), g_pair.reshape(-1))
    if not calibrate:
        return H[:-_CAMERA, :-_CAMERA], g[:-_CAMERA]
    information = 1 / torch.tensor(_PRIOR, dtype=H.dtype) ** 2 / max(1, table.num_matches)
    H[-_CAMERA:, -_CAMERA:] += torch.diag(information)
    g[-_CAMERA:] += information * state.change
    return H, g
