"""The cameras that joint training starts from: the given ones, or better ones by matches alone."""

import torch
from torch import Tensor

from pipeline.geometry.similarity import umeyama
from pipeline.porf.adjustment import adjust
from pipeline.porf.config import EpipolarConfig
from pipeline.porf.epipolar import MatchTable
from pipeline.porf.gate import Candidate, Gate
from pipeline.progress import Progress

MIN_EVIDENCE = 5.0
"""Standard errors by which a new calibration must beat the given one on held-out matches.

Three numbers that all views share hardly overfit thousands of matches, but where the matches do not
determine them they drift, and take the rotations along, at a gain that chance could bring."""


def find_first_cameras(
    gate: Gate, table: MatchTable, options: EpipolarConfig, progress: Progress
) -> tuple[Candidate, list[Candidate]]:
    """Adjust the given cameras to the training matches, then their calibration too.

    Each step counts only if the held-out matches agree better; the calibration only if the evidence
    is strong.

    Returns:
        The accepted cameras, and all that were judged.
    """
    given = gate.given
    if options.adjust_iterations == 0 or table.num_pairs == 0 or not gate.can_decide:
        return given, [given]
    progress.note("cameras are adjusted to the matches")
    adjusted = _adjusted(gate, "adjusted", table, given, options.adjust_iterations, False)
    start = gate.choose([adjusted], given)
    if not options.calibrate:
        return start, [given, adjusted]
    calibrated = _adjusted(gate, "calibrated", table, adjusted, options.adjust_iterations, True)
    if gate.evidence(calibrated, start) >= MIN_EVIDENCE:
        start = calibrated
    return start, [given, adjusted, calibrated]


def _adjusted(
    gate: Gate, name: str, table: MatchTable, start: Candidate, iterations: int, calibrate: bool
) -> Candidate:
    result = adjust(table, start.c2w, start.K, calibrate, iterations)
    return gate.judge(name, _in_frame_of(result.c2w, start.c2w), result.K)


def _in_frame_of(c2w: Tensor, reference: Tensor) -> Tensor:
    """Poses (V, 4, 4) moved by the similarity that brings their centres nearest to a reference's.

    Matches leave position, orientation and scale of the whole free; the region of interest does
    not.
    """
    similarity = umeyama(c2w[:, :3, 3].numpy(), reference[:, :3, 3].double().numpy())
    return torch.from_numpy(similarity.apply_c2w(c2w.numpy()))
