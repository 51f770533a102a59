"""The acceptance gate: refined cameras count only if matches that no one trained on agree better.

Candidates are the given cameras, those of bundle adjustment and of the epipolar-only phase, and
those of joint training.
All are judged on the same held-out matches by the same robust mean of symmetric epipolar distances.
The given cameras come first: a tie, or a gain that chance could bring, keeps them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.formats.matches import ViewMatches
from pipeline.porf.epipolar import MatchTable, symmetric_epipolar_errors_px
from pipeline.porf.lens import Lens

MIN_HELDOUT = 50
"""With fewer held-out matches no decision is possible, and the given cameras are kept."""

CLEARLY = 3.0
"""Standard errors by which held-out distances must be smaller: chance brings gains too."""

OWN_SHARE = 0.1
"""Share of the matches that is held out where the files mark none."""


@dataclass(frozen=True)
class Candidate:
    """Cameras that might be exported.

    Attributes:
        name: `input`, `adjusted`, `calibrated`, `calibrated_radial`, `epipolar` or `joint`.
        c2w: (V, 4, 4) normalised frame, on the CPU.
        K: (V, 3, 3) intrinsics of the matches' pixels, float64 on the CPU.
        lens: how K came from the given intrinsics; its distortion is still in the matches' pixels.
        error_px: robust mean of the held-out symmetric epipolar distances.
        median_px: their median.
    """

    name: str
    c2w: Tensor
    K: Tensor
    lens: Lens
    error_px: float
    median_px: float


class Gate:
    """Judges cameras on held-out matches.

    Distances are cut off at four times the median under the given cameras (at least one pixel), so
    that wrong matches, which no cameras explain, weigh the same for every candidate.

    Args:
        matches: all matches of the case; their held-out rows are used.
        K: (V, 3, 3) intrinsics of the matches' pixels.
        c2w_input: (V, 4, 4) the given cameras, normalised frame.
    """

    def __init__(self, matches: Sequence[ViewMatches], K: Tensor, c2w_input: Tensor) -> None:
        self.table = MatchTable.from_matches(
            matches, heldout=True, both_directions=False, max_matches_per_pair=None
        )
        self.K = K.double().cpu()
        self.can_decide = self.table.num_matches >= MIN_HELDOUT
        given = self._errors_px(c2w_input, Lens.none())
        self.cutoff_px = max(1.0, 4 * float(given.median())) if len(given) else 1.0
        self.given = self.judge("input", c2w_input)

    def judge(self, name: str, c2w: Tensor, lens: Lens | None = None) -> Candidate:
        """Measure cameras (V, 4, 4) on the held-out matches; NaN where there are none.

        Args:
            lens: change of the given intrinsics; None = none.
        """
        lens = lens or Lens.none()
        errors = self._errors_px(c2w, lens)
        robust = median = float("nan")
        if len(errors):
            robust = float(errors.clamp(max=self.cutoff_px).mean())
            median = float(errors.median())
        return Candidate(name, c2w.detach().cpu(), lens.applied(self.K), lens, robust, median)

    def choose(
        self, candidates: Sequence[Candidate], default: Candidate | None = None
    ) -> Candidate:
        """The candidate that held-out matches clearly prefer; the default (the given cameras) in
        case of doubt."""
        best = default or self.given
        if not self.can_decide:
            return best
        for candidate in candidates:
            if self.evidence(candidate, best) >= CLEARLY:
                best = candidate
        return best

    def evidence(self, candidate: Candidate, against: Candidate) -> float:
        """By how many standard errors a candidate's held-out distances are smaller than another's.

        The distances are compared match by match, so what all cameras share cancels.
        """
        gain = self._clamped(against) - self._clamped(candidate)
        error = gain.std() / max(1, len(gain)) ** 0.5
        return float(gain.mean() / error.clamp(min=1e-12)) if len(gain) > 1 else 0.0

    def _clamped(self, candidate: Candidate) -> Tensor:
        return self._errors_px(candidate.c2w, candidate.lens).clamp(max=self.cutoff_px)

    def _errors_px(self, c2w: Tensor, lens: Lens) -> Tensor:
        K = lens.applied(self.K)
        with torch.no_grad():
            table = lens.undistorted(self.table, K)
            return symmetric_epipolar_errors_px(table, c2w.detach().double().cpu(), K)


def with_heldout_marks(
    matches: Sequence[ViewMatches], seed: int, share: float = OWN_SHARE
) -> list[ViewMatches]:
    """Matches with a `share` held out, where the files mark none themselves; 0 = none at all.

    The choice hangs on a match's coordinates alone, so both stored directions of a pair agree.
    """
    if share > 0 and any(mark.any() for view in matches for mark in view.heldout):
        return list(matches)
    marked = []
    for view in matches:
        heldout = [_coordinate_hash(m, seed) < share for m in view.matches_px]
        marked.append(replace(view, heldout=heldout))
    return marked


def _coordinate_hash(matches_px: NDArray, seed: int) -> NDArray:
    """Pseudo-random numbers (M,) in [0, 1) that are the same for a match and its mirror."""
    bits = np.ascontiguousarray(matches_px, dtype=np.float32).view(np.uint32).astype(np.uint64)
    factors = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], dtype=np.uint64)
    with np.errstate(over="ignore"):
        sides = (bits.reshape(-1, 2, 2) * factors).sum(axis=2, dtype=np.uint64)
        mixed = sides.sum(axis=1, dtype=np.uint64) + np.uint64(seed) * factors[0]
        for shift in (33, 29, 32):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(0xFF51AFD7ED558CCD)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53
