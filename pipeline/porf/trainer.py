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

A second stage, on request, then trains a finer surface anew while the accepted cameras stay.
"""

import hashlib
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
from pipeline.porf.artifacts import TrainResult, write_artifacts
from pipeline.porf.board import Board
from pipeline.porf.bundle_adjustment import detached_views
from pipeline.porf.checkpoint import CheckpointFile, training_identity
from pipeline.porf.compiled import use_threads
from pipeline.porf.config import TrainConfig
from pipeline.porf.epipolar import MatchTable
from pipeline.porf.epipolar_phase import refine_by_epipolar
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.first_cameras import find_first_cameras
from pipeline.porf.first_shape import give_first_shape
from pipeline.porf.gate import Candidate, Gate, with_heldout_marks
from pipeline.porf.interruption import EXIT_CODE, Interrupted, Interruption
from pipeline.porf.joint import JointTraining, pixel_psnr
from pipeline.porf.lens import Lens
from pipeline.porf.loop import Surroundings, TrainingLoop
from pipeline.porf.memory import is_out_of_memory, keep_freed_memory, too_little_memory
from pipeline.porf.models import build_field, build_poses, resolve_device
from pipeline.porf.observations import load_observations
from pipeline.porf.outcome import (
    camera_figures,
    contradicted,
    decision,
    exported_cameras,
    judgement,
    lens_figures,
    mean_turn_deg,
    training_figures,
)
from pipeline.porf.poses import PoseField
from pipeline.porf.second_stage import begin_like, second_stage_options
from pipeline.progress import NullProgress, Progress
from pipeline.verdict import Verdict

_PSNR_PIXELS = 8192


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
    keep_freed_memory()
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
        self.in_second_stage = False

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
        self.board = Board(self.work, config.tensorboard, self._first_step + joint.step)
        with matrix_precision(config, self.device):
            joint, loop = self._train(joint)
        if self._trains_surface:
            joint.field.begin_step(joint.config.steps, joint.config.steps)
            self.settings |= loop.settings | {"steps_per_second": round(loop.rate, 3)}
            loop.pictures()
        self.board.close(out)
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

    @property
    def _trains_surface(self) -> bool:
        """Whether there is more to do than to find cameras by matches."""
        return self.config.steps > 0

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(_derived_seed(self.seed, purpose))

    def _new_poses(self) -> PoseField:
        poses = build_poses(self.config.pose, self.start.c2w.float(), self._generator("poses"))
        return poses.to(self.device)

    @property
    def _first_step(self) -> int:
        """Steps that were trained before the present stage."""
        return self.config.steps if self.in_second_stage else 0

    def _joint(self, poses: PoseField) -> JointTraining:
        """Training of the present stage before its first step."""
        config, stage = self.config, ""
        if self.in_second_stage:
            config, stage = second_stage_options(config), "second stage, "
        field_model = build_field(config, self._generator(f"{stage}field"), self.device)
        if config.compile and "compile" not in self.unused:
            compile_rendering(cast(nn.Module, field_model))
        return JointTraining(
            config,
            field_model,
            poses,
            self.observations,
            self.table,
            self.match_K,
            _derived_seed(self.seed, f"{stage}joint"),
        )

    def _train(self, joint: JointTraining) -> tuple[JointTraining, TrainingLoop]:
        """Train what is left; the last stage's training and loop."""
        if not self.in_second_stage:
            loop = self._loop("joint", joint)
            loop.run((lambda: self._settle(joint)) if self._refines else None)
            self._accept_last(joint)
            if self.config.surface.mode == "joint":
                return joint, loop
            joint = self._second_stage(joint)
        loop = self._loop("second stage", joint)
        loop.run()
        return joint, loop

    def _loop(self, phase: str, joint: JointTraining) -> TrainingLoop:
        around = Surroundings(self._camera_figures, self.progress, self.interruption, self.board)
        return TrainingLoop(
            phase,
            joint,
            around,
            self.checkpoint,
            self._state,
            lambda purpose: self._generator(f"{phase}, {purpose}"),
            self.history,
            self._first_step,
        )

    def _camera_figures(self, c2w: Tensor) -> tuple[float, float]:
        return self._judge("now", c2w).error_px, mean_turn_deg(self.c2w_input, c2w)

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the steps."""
        return {
            "accepted": self.accepted,
            "candidates": [(c.name, c.c2w, astuple(c.lens)) for c in self.candidates],
            "start": self.start.name,
            "second_stage": self.in_second_stage,
        }

    def _second_stage(self, joint: JointTraining) -> JointTraining:
        """A finer surface, fitted to the same depths, around the cameras as they are by now."""
        self.in_second_stage = True
        self.progress.note("a finer surface is trained anew, with these cameras")
        finer = self._joint(self._new_poses())
        finer.fix_poses(joint.current_c2w())
        finer.limit_chunk(joint.chunk_rays, joint.memory_ran_out_at_step)
        begin_like(joint.field, finer, self._generator("second stage, shape"), self.progress)
        return finer

    def _start(self) -> JointTraining:
        """Joint training, fresh after the epipolar phase or where the checkpoint left it."""
        state, reason = self.checkpoint.load(self.device)
        if reason:
            self.progress.note(reason)
        if state is not None:
            self.history = state["history"]
            self.candidates = [
                self.gate.judge(name, c2w, Lens(*lens)) for name, c2w, lens in state["candidates"]
            ]
            self._start_from(self._candidate(state["start"]), state["accepted"])
            self.in_second_stage = state["second_stage"]
            joint = self._joint(self._new_poses())
            joint.load_state_dict(state["joint"])
            stage = " of the second stage" if self.in_second_stage else ""
            self.progress.note(
                f"training continues at step {joint.step} of {joint.config.steps}{stage}"
            )
            return joint
        self.candidates = [self.gate.given]
        if self._refines:
            options = self.config.epipolar
            start, self.candidates = find_first_cameras(
                self.gate, self.table, options, self.progress
            )
            self._start_from(start, start.name)
        joint = self._joint(self._epipolar_phase())
        self._shape(joint)
        return joint

    def _candidate(self, name: str) -> Candidate:
        return next(c for c in self.candidates if c.name == name)

    def _start_from(self, start: Candidate, accepted: str) -> None:
        """Train with these cameras, their calibration, and pixels that it explains."""
        self.start, self.accepted = start, accepted
        self.match_K = start.K.float().to(self.device)
        self.table = start.lens.undistorted(self.table, self.match_K)
        self.observations = self.observations.calibrated(
            self.case.cameras.K, start.K.numpy(), start.lens.distortion
        )

    def _judge(self, name: str, c2w: Tensor) -> Candidate:
        return self.gate.judge(name, c2w, self.start.lens)

    def _shape(self, joint: JointTraining) -> None:
        """Give a fast field its first surface from matches and stereo, if one is to be trained."""
        if isinstance(joint.field, GridModel) and self._trains_surface:
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

    def _settle(self, joint: JointTraining) -> None:
        """Choose the cameras and train the surface alone from here on."""
        if joint.poses_move:
            self.candidates.append(self._judge("joint", joint.current_c2w()))
        # The surface has grown with one calibration: only cameras that share it can take over.
        usable = [c for c in self.candidates if c.lens == self.start.lens]
        best = self.gate.choose(usable, self.start)
        self.accepted = best.name
        joint.fix_poses(best.c2w)

    def _accept_last(self, joint: JointTraining) -> None:
        """Without a step at which cameras settle, the last ones are taken."""
        if not self._trains_surface:
            joint.fix_poses(self._candidate(self.accepted).c2w)
        elif self._refines and joint.fixed_c2w is None:
            self.candidates.append(self._judge("joint", joint.current_c2w()))
            self.accepted = "joint"

    def _finish(self, joint: JointTraining, out: Path) -> TrainResult:
        c2w = joint.current_c2w()
        cameras = self.case.cameras
        said = decision(self.gate, self.candidates, self.accepted)
        if said:
            self.progress.note(said)
        if self.accepted != "input":
            cameras = exported_cameras(cameras, c2w, self.start.K)
        result = TrainResult(cameras, self.accepted, self.candidates, self.history)
        result.figures = self._figures(joint, cameras)
        detached = detached_views(self.table, c2w, self.match_K)
        self.warnings += contradicted(self.case.image_paths[view].name for view in detached)
        result.verdict = self._verdict(result)
        field = joint.field if self._trains_surface else None
        write_artifacts(out, joint.config, field, result, c2w, self.case)
        return result

    def _figures(self, joint: JointTraining, cameras: IdrCameras) -> dict[str, Any]:
        heldout = self.observations.heldout_pixels(_PSNR_PIXELS, self._generator("psnr"))
        psnr = None
        if heldout is not None and self._trains_surface:
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
        verdict.settings["device"] = str(self.device)
        verdict.settings["threads"] = torch.get_num_threads()
        return verdict


def _derived_seed(seed: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{seed}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:7], "little")
