"""The cameras that joint training starts from: the given ones, or better ones by matches alone."""

import torch
from torch import Tensor

from pipeline.geometry.similarity import umeyama
from pipeline.porf.bundle_adjustment import LensModel, bundle_adjust
from pipeline.porf.config import EpipolarConfig
from pipeline.porf.epipolar import MatchTable
from pipeline.porf.gate import Candidate, Gate
from pipeline.progress import Progress

MIN_EVIDENCE = 5.0
"""Standard errors by which a new calibration must beat the given one on held-out matches.

Few numbers that all views share hardly overfit thousands of matches, but where the matches do not
determine them they drift, and take the rotations along, at a gain that chance could bring."""

_CALIBRATIONS: dict[str, LensModel] = {"calibrated": "pinhole", "calibrated_radial": "radial"}
"""Names of candidates and what they refine beside the poses, from few numbers to more."""


def find_first_cameras(
    gate: Gate, table: MatchTable, options: EpipolarConfig, progress: Progress
) -> tuple[Candidate, list[Candidate]]:
    """Adjust the given cameras to the training matches, then their calibration too; then once more
    with a loss that fits the errors.

    Each step counts only if the held-out matches agree better; a calibration only if the evidence
    is strong.

    Returns:
        The accepted cameras, and all that were judged.
    """
    start, judged = gate.given, [gate.given]
    if not options.bundle_adjust or table.num_pairs == 0 or not gate.can_decide:
        return start, judged
    progress.note("cameras are adjusted to the matches")
    judged.append(_adjusted(gate, "adjusted", table, "given"))
    start = gate.choose(judged[1:], start)
    for name, model in _CALIBRATIONS.items() if options.calibrate else ():
        judged.append(_adjusted(gate, name, table, model))
        if gate.evidence(judged[-1], start) >= MIN_EVIDENCE:
            start = judged[-1]
    if start is not gate.given:
        sharper = _sharpened(gate, start, table)
        # as many numbers from the same matches: neither is favoured
        if gate.evidence(sharper, start) > 0:
            judged[[candidate is start for candidate in judged].index(True)] = sharper
            start = sharper
    return start, judged


def _adjusted(gate: Gate, name: str, table: MatchTable, model: LensModel) -> Candidate:
    given = gate.given
    result = bundle_adjust(table, given.c2w, gate.K, model)
    return gate.judge(name, _in_frame_of(result.c2w, given.c2w), result.lens)


def _sharpened(gate: Gate, start: Candidate, table: MatchTable) -> Candidate:
    """The same cameras under a loss as narrow as their errors ask for."""
    model = _CALIBRATIONS.get(start.name, "given")
    result = bundle_adjust(table, start.c2w, gate.K, model, start.lens, fit_loss=True)
    return gate.judge(start.name, _in_frame_of(result.c2w, gate.given.c2w), result.lens)


def _in_frame_of(c2w: Tensor, reference: Tensor) -> Tensor:
    """Poses (V, 4, 4) moved by the similarity that brings their centres nearest to a reference's.

    Matches leave position, orientation and scale of the whole free; the region of interest does
    not.
    """
    similarity = umeyama(c2w[:, :3, 3].numpy(), reference[:, :3, 3].double().numpy())
    return torch.from_numpy(similarity.apply_c2w(c2w.numpy()))
