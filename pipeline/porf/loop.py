"""The steps of a training and what happens between them: looks, history, checkpoints, progress."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import TrainingDiverged
from pipeline.porf.artifacts import HISTORY_COLUMNS
from pipeline.porf.board import Board
from pipeline.porf.checkpoint import CheckpointFile
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.first_shape import fit_to_anchors, look_again, views_to_look_at
from pipeline.porf.interruption import Interruption
from pipeline.porf.joint import JointTraining
from pipeline.porf.memory import is_out_of_memory
from pipeline.porf.outcome import progress_figures
from pipeline.porf.stereo_views import StereoViews
from pipeline.progress import Progress

_REPORT_SECONDS = 0.5
_DIVERGED = "lower the learning rates of the train stage, or try another seed"


@dataclass(frozen=True)
class Surroundings:
    """What the loops of one training share.

    Attributes:
        camera_figures: held-out epipolar error in pixels and mean turn in degrees of cameras
            (V, 4, 4), for the history.
        board: takes the curves.
    """

    camera_figures: Callable[[Tensor], tuple[float, float]]
    progress: Progress
    interruption: Interruption
    board: Board


class TrainingLoop:
    """Advances a training to its last step; a kill loses what came after the last checkpoint.

    Args:
        phase: its name in the progress.
        checkpoint: written every `checkpoint_every` steps, and when an interruption is asked for.
        extra: what a checkpoint holds beside training and history.
        generator_for: a generator on the CPU for every purpose.
        history: rows of `HISTORY_COLUMNS` so far; the loop appends to it.
        first_step: of the history, in which the loop's own steps go on.
    """

    def __init__(
        self,
        phase: str,
        joint: JointTraining,
        around: Surroundings,
        checkpoint: CheckpointFile,
        extra: Callable[[], dict[str, Any]],
        generator_for: Callable[[str], torch.Generator],
        history: list[list[float]],
        first_step: int = 0,
    ) -> None:
        self.phase, self.joint, self.config = phase, joint, joint.config
        self.around, self.checkpoint, self.extra = around, checkpoint, extra
        self.generator_for, self.history, self.first_step = generator_for, history, first_step
        self.last_report = self.started = time.monotonic()
        self.started_step = joint.step

    def run(self, settle: Callable[[], None] | None = None) -> None:
        """Train to the end.

        Args:
            settle: called before the step at which the cameras are to be fixed.
        """
        config, joint = self.config, self.joint
        settle_step = round(config.steps * (1 - config.pose.settle_share))
        looks = {round(config.steps * share) for share in config.look.shares}
        while joint.step < config.steps:
            if settle is not None and joint.step == settle_step:
                settle()
            if joint.step in looks:
                self._look_again()
            self._advance()
            if joint.step % config.log_every == 0 or joint.step == config.steps:
                self._log()
            if joint.step % config.checkpoint_every == 0 and joint.step < config.steps:
                self.save()
            if self.around.interruption.requested:
                self.save()
                self.around.interruption.check()
            self._report()

    @property
    def settings(self) -> dict[str, Any]:
        """What was done otherwise than asked for."""
        joint = self.joint
        if joint.chunk_rays is None:
            return {}
        at = joint.memory_ran_out_at_step
        return {"chunk_rays": joint.chunk_rays, "memory_ran_out_at_step": at}

    @property
    def rate(self) -> float:
        """Steps a second since the loop was made."""
        passed_s = time.monotonic() - self.started
        return (self.joint.step - self.started_step) / max(1e-9, passed_s)

    def save(self) -> None:
        """Write a checkpoint, unless a parameter is not finite: the last good one stays.

        Raises:
            TrainingDiverged: the weights are not finite.
        """
        joint = self.joint
        if not joint.is_finite():
            raise TrainingDiverged(
                f"the weights are not finite at step {joint.step} of {self.config.steps}",
                hint=_DIVERGED,
            )
        state = {"joint": joint.state_dict(), "history": self.history, **self.extra()}
        self.checkpoint.save(state, joint.step)
        self.pictures()

    def pictures(self) -> None:
        """A small render for the board."""
        joint, step = self.joint, self.first_step + self.joint.step
        self.around.board.pictures(step, joint.field, joint.observations, joint.current_c2w())

    @cached_property
    def _small_views(self) -> list[StereoViews]:
        """The photos as looks need them, reduced once for all looks."""
        joint = self.joint
        return views_to_look_at(joint.observations, self.config.look, joint.current_c2w())

    def _look_again(self) -> None:
        """Measure depths again around a fast field's surface, where they count for anything."""
        joint, around = self.joint, self.around
        begins = joint.step == 0
        if not isinstance(joint.field, GridModel):
            return
        if self.config.grid.anchor_weight == 0 and not begins:
            return
        generator = self.generator_for(f"look at step {joint.step}")
        look_again(
            joint.field,
            self.config,
            joint.observations,
            self._small_views,
            joint.current_c2w(),
            generator,
            around.progress,
            around.interruption,
        )
        if begins:
            fit_to_anchors(joint.field, self.config.look.fit_steps, generator, around.progress)

    def _advance(self) -> None:
        """One step; where memory runs out, the same step again in chunks of half as many rays."""
        joint = self.joint
        before = joint.random_state()
        while True:
            try:
                return joint.advance()
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                smaller = joint.halve_chunk()
                if smaller is None:
                    raise
            joint.set_random_state(before)
            self.around.progress.warn(
                f"memory ran out at step {joint.step}: rays are trained {smaller} at a time now"
            )

    def _log(self) -> None:
        joint = self.joint
        step = self.first_step + joint.step
        last = int(self.history[-1][0]) if self.history else 0
        figures = joint.take_figures(step - last)
        row = [
            float(step),
            *(figures[name] for name in ("loss", "color", "eikonal", "epipolar", "psnr")),
            *self.around.camera_figures(joint.current_c2w()),
        ]
        self.history.append(row)
        board = self.around.board
        board.scalars(step, dict(zip(HISTORY_COLUMNS[1:], row[1:], strict=True)))
        board.scalars(step, {"steps_per_second": self.rate})

    def _report(self) -> None:
        now = time.monotonic()
        done = self.joint.step == self.config.steps
        if not done and now - self.last_report < _REPORT_SECONDS:
            return
        self.last_report = now
        shown = progress_figures(self.history) | {"steps_per_s": self.rate}
        self.around.progress.advance(self.phase, self.joint.step, self.config.steps, **shown)
