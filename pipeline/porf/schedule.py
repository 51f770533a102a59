"""Schedules as pure functions of the step, so that a resumed training continues exactly."""

import math


def warmup_cosine(step: int, total: int, warmup: int, floor: float) -> float:
    """Factor on a learning rate: linear warm-up, then half a cosine from 1 to `floor`.

    Source: NeuS `update_learning_rate`, used unchanged by PoRF.
    """
    if step < warmup:
        return step / warmup
    share = min(1.0, (step - warmup) / max(1, total - warmup))
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * share))


def geometric(share: float, start: float, end: float) -> float:
    """From `start` to `end` with a constant ratio a unit of `share` (clamped to [0, 1])."""
    return start * (end / start) ** min(1.0, max(0.0, share))


def linear(share: float, start: float, end: float) -> float:
    """From `start` to `end` linearly in `share` (clamped to [0, 1])."""
    return start + (end - start) * min(1.0, max(0.0, share))
