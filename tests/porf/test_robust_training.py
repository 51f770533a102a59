"""Training under bad luck: kills, other checkpoints, NaN, odd cases."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.errors import InputError, TrainingDiverged
from pipeline.formats.case import Case
from pipeline.formats.idr import load_idr_cameras
from pipeline.formats.matches import ViewMatches
from pipeline.porf.checkpoint import load_plain
from pipeline.porf.config import TrainConfig
from pipeline.porf.joint import JointTraining
from pipeline.porf.snapshot import write_snapshot
from pipeline.porf.trained import load_trained
from pipeline.porf.trainer import train
from pipeline.progress import NullProgress
from tests.porf.tiny_case import TINY_OPTIONS, VIEWS, TinyCase, write_tiny_case

REPOSITORY = Path(__file__).resolve().parents[2]


class Said(NullProgress):
    """Remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    warn = note


def options(**changes: Any) -> TrainConfig:
    """Without the parts that come before the steps: they are not what is tested here."""
    grid = {**TINY_OPTIONS["grid"], "anchor_steps": 0, "anchor_weight": 0}
    before = {"epipolar": {"bundle_adjust": False, "pairs_per_step": 8}, "grid": grid}
    return TrainConfig.model_validate({**TINY_OPTIONS, **before, "device": "cpu", **changes})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    return write_tiny_case(tmp_path_factory.mktemp("case"))


def other_cases(case: Case, folder: Path) -> dict[str, Case]:
    """The same case with one part exchanged, by the part's name."""
    moved = np.array(case.cameras.c2w)
    moved[3, 0, 3] += 1e-6
    darker = folder / "darker.png"
    Image.fromarray(case.load_images()[2] // 2).save(darker)
    mask = folder / "mask.png"
    Image.new("L", (case.width, case.height), 255).save(mask)
    return {
        "cameras": replace(case, cameras=replace(case.cameras, c2w=moved)),
        "images": replace(case, image_paths=[*case.image_paths[:2], darker, *case.image_paths[3:]]),
        "masks": replace(case, mask_paths=[mask] * len(case)),
        "matches": with_matches(case, lambda i, j, pixels, marks: (pixels[:-1], marks[:-1])),
    }


def stopped_at(step: int, case: Case, config: TrainConfig, work: Path) -> None:
    """Train into `work` until an error at `step`."""
    advance = JointTraining.advance

    def until(self: JointTraining) -> None:
        if self.step == step:
            raise KeyboardInterrupt
        advance(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JointTraining, "advance", until)
        with pytest.raises(KeyboardInterrupt):
            train(case, config, work / "out", work)


class TestCheckpoints:
    def test_of_other_options_seed_or_case_are_refused_by_name(
        self, tiny: TinyCase, tmp_path: Path
    ) -> None:
        stopped_at(25, tiny.case, options(), tmp_path)
        other = {"rays": 64, "pose": {"mode": "index_only"}}
        with pytest.raises(InputError) as refused:
            train(tiny.case, options(**other), tmp_path / "out", tmp_path)
        assert "train.pose.mode porf → index_only; train.rays 128 → 64" in refused.value.message
        assert "--no-resume" in (refused.value.hint or "")
        with pytest.raises(InputError, match="another training: seed 0 → 7"):
            train(tiny.case, options(), tmp_path / "out", tmp_path, seed=7)
        for part, case in other_cases(tiny.case, tmp_path).items():
            with pytest.raises(InputError) as refused:
                train(case, options(), tmp_path / "out", tmp_path)
            assert refused.value.message.endswith(f"another training: other {part}")
        assert load_plain(tmp_path / "checkpoint.pt")["step"] == 20

    def test_where_it_runs_and_how_often_it_saves_may_change(
        self, tiny: TinyCase, tmp_path: Path
    ) -> None:
        stopped_at(25, tiny.case, options(), tmp_path)
        said = Said()
        config = options(checkpoint_every=15)
        train(tiny.case, config, tmp_path / "out", tmp_path, progress=said)
        assert "training continues at step 20 of 40" in said.lines

    @pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"not a checkpoint"])
    def test_damaged_ones_are_named_and_training_starts_anew(
        self, tiny: TinyCase, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / "checkpoint.pt").write_bytes(content)
        said = Said()
        train(tiny.case, options(steps=2), tmp_path / "out", tmp_path, progress=said)
        assert any("the checkpoint is not used" in line for line in said.lines)

    def test_snapshot_of_an_unfinished_training(self, tiny: TinyCase, tmp_path: Path) -> None:
        config = options(pose={"joint_start": 0, "settle_share": 0})
        with pytest.raises(InputError, match="no checkpoint"):
            write_snapshot(tiny.case, config, tmp_path, tmp_path / "snapshot", 0)
        stopped_at(25, tiny.case, config, tmp_path)
        assert write_snapshot(tiny.case, config, tmp_path, tmp_path / "snapshot", 0) == 20
        model = load_trained(tmp_path / "snapshot")
        stored = load_plain(tmp_path / "checkpoint.pt")["joint"]["field"]
        assert all(
            torch.equal(model.field.state_dict()[k], v) for k, v in stored.items() if k != "cache"
        )  # derived; a finished model has it fresh
        cameras = load_idr_cameras(tmp_path / "snapshot" / "cameras_refine_porf.npz")
        np.testing.assert_allclose(cameras.c2w_normalised, model.c2w, atol=1e-6)
        assert np.abs(cameras.c2w - tiny.case.cameras.c2w).max() > 1e-5
        with pytest.raises(InputError, match=r"train.rays 128 → 64"):
            write_snapshot(tiny.case, options(rays=64), tmp_path, tmp_path / "no", 0)


KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from pathlib import Path
from pipeline.formats.case import load_case
from pipeline.porf import checkpoint, joint
from pipeline.porf.config import TrainConfig
from pipeline.porf.trainer import train

case, work, options, where, step = sys.argv[1:]
advance, save = joint.JointTraining.advance, torch.save
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
def advancing(self):
    advance(self)
    if where == "step" and self.step == int(step):
        kill()
def saving(state, file):
    save(state, file)
    if where == "save" and state["step"] == int(step):
        file.truncate(1000)
        file.flush()
        kill()
joint.JointTraining.advance, torch.save = advancing, saving
config = TrainConfig.model_validate_json(options)
train(load_case(Path(case), Path(case)), config, Path(work) / "out", Path(work))
"""


@pytest.mark.slow
def test_kill_9_anywhere_and_resume_is_the_same_training(tiny: TinyCase, tmp_path: Path) -> None:
    """Before the first checkpoint, between two, and while one is written."""
    config = options(steps=30, pose={"joint_start": 0.2})
    work = tmp_path / "work"
    work.mkdir()
    for where, step in (("step", 7), ("save", 20), ("step", 23)):
        arguments = [str(tiny.folder), str(work), config.model_dump_json(), where, str(step)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, *arguments], cwd=REPOSITORY, env=environment, check=False
        )
        assert killed.returncode == -signal.SIGKILL
    assert load_plain(work / "checkpoint.pt")["step"] == 20
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        said = Said()
        parts = train(tiny.case, config, tmp_path / "parts", work, progress=said)
        whole = train(tiny.case, config, tmp_path / "whole", tmp_path / "work_whole")
    finally:
        torch.set_num_threads(threads)
    assert "training continues at step 20 of 30" in said.lines
    assert parts.history == whole.history
    np.testing.assert_array_equal(parts.cameras.c2w, whole.cameras.c2w)


def test_divergence_names_the_last_good_checkpoint(tiny: TinyCase, tmp_path: Path) -> None:
    advance = JointTraining.advance

    def until(self: JointTraining) -> None:
        if self.step == 24:
            with torch.no_grad():
                next(iter(self.field.parameters())).fill_(float("nan"))
        advance(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JointTraining, "advance", until)
        with pytest.raises(TrainingDiverged) as first:
            train(tiny.case, options(), tmp_path / "out", tmp_path / "work")
        with pytest.raises(TrainingDiverged) as none:
            config = options(checkpoint_every=100)
            train(tiny.case, config, tmp_path / "out", tmp_path / "work_none")
    assert "checkpoint.pt, of step 20" in (first.value.hint or "")
    assert "none was written yet" in (none.value.hint or "")
    assert load_plain(tmp_path / "work" / "checkpoint.pt")["step"] == 20


def with_matches(case: Case, change: Any) -> Case:
    matches = []
    for index, view in enumerate(case.matches):
        rows = [
            (source, *change(index, source, pixels, marks))
            for source, pixels, marks in zip(
                view.sources, view.matches_px, view.heldout, strict=True
            )
        ]
        rows = [row for row in rows if row[1] is not None]
        matches.append(
            ViewMatches(*(list(part) for part in zip(*rows, strict=True)))
            if rows
            else ViewMatches([], [], [])
        )
    return replace(case, matches=matches)


ONE_VIEW = {
    "rays_from": "one_view",
    "epipolar": {"bundle_adjust": False, "steps": 5, "pairs_from": "one_view"},
}


@pytest.mark.parametrize("sampling", [{}, ONE_VIEW])
@pytest.mark.parametrize("kind", ["view without matches", "pairs without inliers", "no matches"])
def test_odd_matches(tiny: TinyCase, tmp_path: Path, sampling: Any, kind: str) -> None:
    def change(i: int, j: int, pixels: Any, marks: Any) -> Any:
        if kind == "no matches" or (kind == "view without matches" and 4 in (i, j)):
            return None, None
        if kind == "pairs without inliers" and i + j < 6:
            return pixels + np.array([0, 400, 0, 0], np.float32), marks
        return pixels, marks

    case = with_matches(tiny.case, change)
    config = options(
        steps=3 * VIEWS, log_every=VIEWS, pose={"joint_start": 0, "settle_share": 0}, **sampling
    )
    result = train(case, config, tmp_path / "out", tmp_path / "work")
    assert np.isfinite(result.cameras.c2w).all()
    losses = np.array(result.history)[:, 1]
    assert np.isfinite(losses).all()
    told = " ".join(result.verdict.reasons)
    assert ("there are no matches" in told) == (kind == "no matches")


@pytest.mark.parametrize("field", ["grid", "neus"])
def test_a_camera_inside_the_unit_sphere_trains(tiny: TinyCase, tmp_path: Path, field: str) -> None:
    c2w = np.array(tiny.case.cameras.c2w_normalised)
    c2w[2, :3, 3] *= 0.2
    case = replace(tiny.case, cameras=tiny.case.cameras.with_normalised_poses(c2w))
    result = train(case, options(field=field, steps=10), tmp_path / "out", tmp_path / "work")
    assert np.isfinite(np.array(result.history)[:, 1]).all()
    assert np.isfinite(result.cameras.c2w).all()
