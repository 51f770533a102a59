"""Training of one case: bundle adjustment, gate, joint training, gate, settling; with resume.

How cameras are accepted:

1. The given cameras are adjusted to the matches, on request with their calibration and by an
   epipolar-only phase of the pose model. A result with which the held-out matches do
   not agree better is dropped, and training starts from what there was before.
2. Joint training moves cameras and surface together from `pose.joint_start` on.
3. When the last `pose.settle_share` of the steps begins, the candidates from before and
   `joint` are judged on the held-out matches and the best one is fixed. The remaining steps train
   the surface alone, so surface and exported cameras always belong together, and colours that pull
   the cameras away from what the matches say cannot make them worse.

With `settle_share` 0 (the published schedule) cameras are trained to the last step, exported as
they are, and the gate only reports.
"""

import hashlib
import time
from dataclasses import astuple
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pipeline.errors import TrainingDiverged
from pipeline.formats.case import Case
from pipeline.formats.idr import IdrCameras
from pipeline.porf.acceleration import (
    compile_rendering,
    matrix_precision,
    say_unused,
    unused_requests,
)
from pipeline.porf.artifacts import HISTORY_COLUMNS, TrainResult, write_artifacts
from pipeline.porf.board import Board
from pipeline.porf.checkpoint import CheckpointFile, training_identity
from pipeline.porf.config import TrainConfig
from pipeline.porf.epipolar import MatchTable
from pipeline.porf.epipolar_phase import refine_by_epipolar
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.first_cameras import find_first_cameras
from pipeline.porf.first_shape import fit_to_anchors, give_first_shape, look_again
from pipeline.porf.gate import Candidate, Gate, with_heldout_marks
from pipeline.porf.grid_kernels import use_threads
from pipeline.porf.interruption import EXIT_CODE, Interrupted, Interruption
from pipeline.porf.joint import JointTraining, pixel_psnr
from pipeline.porf.lens import Lens
from pipeline.porf.memory import is_out_of_memory, too_little_memory
from pipeline.porf.models import build_field, build_poses, resolve_device
from pipeline.porf.observations import load_observations
from pipeline.porf.outcome import (
    camera_figures,
    exported_cameras,
    judgement,
    lens_figures,
    mean_turn_deg,
    progress_figures,
    training_figures,
)
from pipeline.porf.poses import PoseField
from pipeline.progress import NullProgress, Progress
from pipeline.verdict import Verdict

_REPORT_SECONDS = 0.5
_PSNR_PIXELS = 8192
_DIVERGED = "lower the learning rates of the train stage, or try another seed"


def train(
    case: Case,
    config: TrainConfig,
    out: Path,
    work: Path,
    seed: int = 0,
    progress: Progress | None = None,
) -> TrainResult:
    """Train one case and write cameras, model, history and figures into `out`.

    Args:
        out: folder to fill.
        work: folder of the checkpoint; a training that was interrupted continues from there.

    Raises:
        InputError: the case or the options do not allow a training.
            Also where memory runs out and no smaller chunk helps.
        TrainingDiverged: the loss is not finite; the last good checkpoint stays in `work`.
        SystemExit: SIGTERM came; the checkpoint is saved and the exit code is 143.
    """
    progress = progress or NullProgress()
    with Interruption() as interruption:
        training = _Training(case, config, work, seed, progress, interruption)
        try:
            return training.run(out)
        except Interrupted:
            raise SystemExit(EXIT_CODE) from None
        except TrainingDiverged as error:
            raise training.named(error) from error
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise too_little_memory(training.device) from error


class _Training:
    def __init__(
        self,
        case: Case,
        config: TrainConfig,
        work: Path,
        seed: int,
        progress: Progress,
        interruption: Interruption,
    ) -> None:
        self.case, self.config, self.seed = case, config, seed
        self.progress, self.interruption = progress, interruption
        self.device = resolve_device(config.device)
        use_threads(torch.get_num_threads())
        self.checkpoint = CheckpointFile(work, training_identity(case, config, seed))
        self.history: list[list[float]] = []
        self.candidates: list[Candidate] = []
        self.warnings: list[str] = []
        self.work = work
        self.unused = unused_requests(config, self.device)
        self.settings: dict[str, Any] = say_unused(self.unused, progress)
        self.accepted = "input"
        self.last_report = self.started = time.monotonic()
        self.started_step = 0

    def run(self, out: Path) -> TrainResult:
        case, config = self.case, self.config
        share = config.epipolar.heldout_share
        matches = with_heldout_marks(case.matches, self.seed, share)
        self.match_K = torch.from_numpy(case.cameras.K).float().to(self.device)
        self.c2w_input = torch.from_numpy(case.cameras.c2w_normalised).float()
        self.gate = Gate(matches, torch.from_numpy(case.cameras.K), self.c2w_input)
        self.start = self.gate.given
        # The original keeps all matches of a pair and draws anew what exceeds the limit.
        as_original = config.epipolar.pairs_from == "one_view"
        self.table = MatchTable.from_matches(
            matches,
            both_directions=as_original,
            max_matches_per_pair=None if as_original else config.epipolar.max_matches_per_pair,
            generator=self._generator("matches"),
            device=self.device,
        )
        if self._refines and self.table.num_pairs == 0:
            self.warnings.append("there are no matches: cameras are refined by colours alone")
        self.observations = load_observations(case, config, self.seed, self.device, self.progress)
        joint = self._start()
        self.board = Board(self.work, config.tensorboard, joint.step)
        with matrix_precision(config, self.device):
            self._train_jointly(joint)
        return self._finish(joint, out)

    def named(self, error: TrainingDiverged) -> TrainingDiverged:
        """The same error with what is left."""
        kept = f"{self.checkpoint.path}, of step {self.checkpoint.step}"
        left = kept if self.checkpoint.step is not None else "none was written yet"
        return TrainingDiverged(
            error.message, f"{error.hint or ''}; the last good checkpoint: {left}".lstrip("; ")
        )

    @property
    def _refines(self) -> bool:
        return self.config.pose.model != "fixed"

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(_derived_seed(self.seed, purpose))

    def _new_poses(self) -> PoseField:
        poses = build_poses(self.config.pose, self.start.c2w.float(), self._generator("poses"))
        return poses.to(self.device)

    def _joint(self, poses: PoseField) -> JointTraining:
        field_model = build_field(self.config, self._generator("field"), self.device)
        if self.config.compile and "compile" not in self.unused:
            compile_rendering(cast(nn.Module, field_model))
        return JointTraining(
            self.config,
            field_model,
            poses,
            self.observations,
            self.table,
            self.match_K,
            _derived_seed(self.seed, "joint"),
        )

    def _start(self) -> JointTraining:
        """Joint training, fresh after the epipolar phase or where the checkpoint left it."""
        state, reason = self.checkpoint.load(self.device)
        if reason:
            self.progress.note(reason)
        if state is not None:
            self.history = state["history"]
            self.accepted = state["accepted"]
            self.candidates = [
                self.gate.judge(name, c2w, Lens(*lens)) for name, c2w, lens in state["candidates"]
            ]
            self._start_from(self._candidate(state["start"]))
            joint = self._joint(self._new_poses())
            joint.load_state_dict(state["joint"])
            self.progress.note(f"training continues at step {joint.step} of {self.config.steps}")
            return joint
        self.candidates = [self.gate.given]
        if self._refines:
            options = self.config.epipolar
            start, self.candidates = find_first_cameras(
                self.gate, self.table, options, self.progress
            )
            self._start_from(start)
        joint = self._joint(self._epipolar_phase())
        self._shape(joint)
        return joint

    def _candidate(self, name: str) -> Candidate:
        return next(c for c in self.candidates if c.name == name)

    def _start_from(self, start: Candidate) -> None:
        """Train with these cameras, their calibration, and pixels that it explains."""
        self.start, self.accepted = start, start.name
        self.match_K = start.K.float().to(self.device)
        self.table = start.lens.undistorted(self.table, self.match_K)
        self.observations = self.observations.calibrated(
            self.case.cameras.K, start.K.numpy(), start.lens.distortion
        )

    def _judge(self, name: str, c2w: Tensor) -> Candidate:
        return self.gate.judge(name, c2w, self.start.lens)

    def _shape(self, joint: JointTraining) -> None:
        """Give a fast field its first surface from matches and stereo."""
        if isinstance(joint.field, GridModel):
            give_first_shape(
                joint.field,
                self.config,
                self.observations,
                self.table,
                self.match_K,
                joint.current_c2w(),
                self._generator,
                self.progress,
                self.interruption,
            )

    def _look_again(self, joint: JointTraining) -> None:
        """Measure depths again around a fast field's surface."""
        if not isinstance(joint.field, GridModel):
            return
        generator = self._generator(f"look at step {joint.step}")
        look_again(
            joint.field,
            self.config,
            self.observations,
            joint.current_c2w(),
            generator,
            self.progress,
            self.interruption,
        )
        if joint.step == 0:
            fit_to_anchors(joint.field, self.config.look.fit_steps, generator, self.progress)

    def _epipolar_phase(self) -> PoseField:
        poses, options = self._new_poses(), self.config.epipolar
        if not self._refines or options.steps == 0 or self.table.num_pairs == 0:
            return poses
        refine_by_epipolar(
            poses,
            self.table,
            self.match_K,
            options,
            self._generator("epipolar"),
            self.progress,
            self.interruption,
        )
        with torch.no_grad():
            candidate = self._judge("epipolar", poses())
        self.candidates.append(candidate)
        if self.gate.choose([candidate], self.start) is candidate:
            self.accepted = "epipolar"
            return poses
        return self._new_poses()

    def _train_jointly(self, joint: JointTraining) -> None:
        config = self.config
        settle_step = round(config.steps * (1 - config.pose.settle_share))
        looks = {round(config.steps * share) for share in config.look.shares}
        self.started, self.started_step = time.monotonic(), joint.step
        while joint.step < config.steps:
            if joint.step == settle_step and self._refines and joint.fixed_c2w is None:
                self._settle(joint)
            if joint.step in looks:
                self._look_again(joint)
            self._advance(joint)
            if joint.step % config.log_every == 0 or joint.step == config.steps:
                self._log(joint)
            if joint.step % config.checkpoint_every == 0 and joint.step < config.steps:
                self._save(joint)
            if self.interruption.requested:
                self._save(joint)
                self.interruption.check()
            self._report(joint)
        self.final_rate = self._rate(joint)

    def _advance(self, joint: JointTraining) -> None:
        """One step; where memory runs out, the same step again in chunks of half as many rays."""
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
            self.settings["chunk_rays"] = smaller
            self.settings["memory_ran_out_at_step"] = joint.step
            self.progress.warn(
                f"memory ran out at step {joint.step}: rays are trained {smaller} at a time now"
            )

    def _settle(self, joint: JointTraining) -> None:
        """Choose the cameras and train the surface alone from here on."""
        if joint.poses_move:
            self.candidates.append(self._judge("joint", joint.current_c2w()))
        # The surface has grown with one calibration: only cameras that share it can take over.
        usable = [c for c in self.candidates if c.lens == self.start.lens]
        best = self.gate.choose(usable, self.start)
        self.accepted = best.name
        joint.fix_poses(best.c2w)

    def _log(self, joint: JointTraining) -> None:
        steps = joint.step - int(self.history[-1][0] if self.history else 0)
        figures = joint.take_figures(steps)
        c2w = joint.current_c2w()
        row = [
            float(joint.step),
            *(figures[name] for name in ("loss", "color", "eikonal", "epipolar", "psnr")),
            self._judge("now", c2w).error_px,
            mean_turn_deg(self.c2w_input, c2w),
        ]
        self.history.append(row)
        self.board.scalars(joint.step, dict(zip(HISTORY_COLUMNS[1:], row[1:], strict=True)))
        self.board.scalars(joint.step, {"steps_per_second": self._rate(joint)})

    def _report(self, joint: JointTraining) -> None:
        now = time.monotonic()
        done = joint.step == self.config.steps
        if not done and now - self.last_report < _REPORT_SECONDS:
            return
        self.last_report = now
        shown = progress_figures(self.history) | {"steps_per_s": self._rate(joint)}
        self.progress.advance("joint", joint.step, self.config.steps, **shown)

    def _rate(self, joint: JointTraining) -> float:
        """Steps a second since this process began to train."""
        return (joint.step - self.started_step) / max(1e-9, time.monotonic() - self.started)

    def _save(self, joint: JointTraining) -> None:
        """Write a checkpoint, unless a parameter is not finite: the last good one stays."""
        if not joint.is_finite():
            raise TrainingDiverged(
                f"the weights are not finite at step {joint.step} of {self.config.steps}",
                hint=_DIVERGED,
            )
        self.checkpoint.save(
            {
                "joint": joint.state_dict(),
                "history": self.history,
                "accepted": self.accepted,
                "candidates": [(c.name, c.c2w, astuple(c.lens)) for c in self.candidates],
                "start": self.start.name,
            },
            joint.step,
        )
        self.board.pictures(joint.step, joint.field, self.observations, joint.current_c2w())

    def _finish(self, joint: JointTraining, out: Path) -> TrainResult:
        joint.field.begin_step(self.config.steps, self.config.steps)
        if self._refines and joint.fixed_c2w is None:
            self.candidates.append(self._judge("joint", joint.current_c2w()))
            self.accepted = "joint"
        c2w = joint.current_c2w()
        cameras = self.case.cameras
        if self.accepted != "input":
            cameras = exported_cameras(cameras, c2w, self.start.K)
        result = TrainResult(cameras, self.accepted, self.candidates, self.history)
        result.figures = self._figures(joint, cameras)
        result.verdict = self._verdict(result)
        write_artifacts(out, self.config, joint.field, result, c2w, self.case)
        self.board.pictures(joint.step, joint.field, self.observations, c2w)
        self.board.close(out)
        return result

    def _figures(self, joint: JointTraining, cameras: IdrCameras) -> dict[str, Any]:
        heldout = self.observations.heldout_pixels(_PSNR_PIXELS, self._generator("psnr"))
        psnr = None
        if heldout is not None:
            psnr = pixel_psnr(joint.field, self.observations, joint.current_c2w(), heldout)
        parts = (self.gate, self.candidates, self.accepted, self.history, self.observations)
        return {
            **training_figures(self.config, *parts),
            **camera_figures(self.case.cameras, cameras),
            **lens_figures(self.start.lens, cameras, self.case),
            "psnr_heldout_db": psnr,
        }

    def _verdict(self, result: TrainResult) -> Verdict:
        verdict = judgement(self.config, self.gate, result, self.warnings)
        verdict.settings |= self.settings
        verdict.settings["steps_per_second"] = round(self.final_rate, 3)
        verdict.settings["device"] = str(self.device)
        verdict.settings["threads"] = torch.get_num_threads()
        return verdict


def _derived_seed(seed: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:7], "little")
