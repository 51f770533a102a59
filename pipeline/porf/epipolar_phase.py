"""First phase of training: cameras alone, from matches alone.

All pairs are batched and no ray is rendered, so thousands of steps take seconds. The result depends
on nothing but its arguments: an interrupted phase is simply run again.
"""

import time

import torch
from torch import Tensor

from pipeline.porf.config import EpipolarConfig
from pipeline.porf.epipolar import MatchTable, epipolar_loss
from pipeline.porf.interruption import Interruption
from pipeline.porf.poses import PoseField
from pipeline.porf.schedule import warmup_cosine
from pipeline.progress import Progress

_FINAL_RATE = 0.02
_WARMUP = 20
_REPORT_SECONDS = 0.5


def refine_by_epipolar(
    poses: PoseField,
    table: MatchTable,
    K: Tensor,
    config: EpipolarConfig,
    generator: torch.Generator,
    progress: Progress,
    interruption: Interruption,
) -> float:
    """Minimise the epipolar loss of all pairs over the pose model's parameters.

    Args:
        table: training matches; larger tables are subsampled at every step.
        K: (V, 3, 3) intrinsics of the matches' pixels.
        generator: on the CPU.

    Returns:
        The last loss: mean over pairs of rate² × Huber mean, pixels.

    Raises:
        Interrupted: a termination was asked for.
    """
    optimiser = torch.optim.Adam(poses.parameters(), lr=config.learning_rate, fused=True)
    every_pair = torch.arange(table.num_pairs)
    per_pair = max(1, config.matches_per_step // max(1, table.num_pairs))
    subsampled = table.num_matches > config.matches_per_step
    last_report = 0.0
    loss = torch.zeros(())
    for step in range(config.steps):
        factor = warmup_cosine(step + 1, config.steps, _WARMUP, _FINAL_RATE)
        optimiser.param_groups[0]["lr"] = config.learning_rate * factor
        used = table.select(every_pair, per_pair, generator) if subsampled else table
        loss, _ = epipolar_loss(
            used, poses(), K, inlier_px=config.inlier_px, normaliser=max(1, table.num_pairs)
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        interruption.check()
        now = time.monotonic()
        if now - last_report > _REPORT_SECONDS or step + 1 == config.steps:
            last_report = now
            progress.advance("epipolar", step + 1, config.steps, loss=float(loss.detach()))
    return float(loss.detach())
