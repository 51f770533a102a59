"""Training of a tiny case, end to end: quality, gate, resume, interruption, bad luck."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from pipeline.errors import InputError, TrainingDiverged
from pipeline.formats.idr import load_idr_cameras
from pipeline.formats.poses import load_pose_text
from pipeline.geometry.cameras import pixel_rays
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.similarity import umeyama
from pipeline.porf.artifacts import HISTORY_COLUMNS
from pipeline.porf.config import TrainConfig
from pipeline.porf.grid import GridSurface
from pipeline.porf.joint import JointTraining
from pipeline.porf.rays import RayBatch, unit_sphere_interval
from pipeline.porf.trained import load_trained
from pipeline.porf.trainer import train
from pipeline.progress import NullProgress
from tests.porf.tiny_case import RADIUS, SCALE_MAT, TINY_OPTIONS, TinyCase, write_tiny_case


class Notes(NullProgress):
    """Remembers what was said, and calls `at` at a step of joint training."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.phases: set[str] = set()

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advance(self, phase: str, done: int, total: int, **figures: float) -> None:
        self.phases.add(phase)


def options(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate({**TINY_OPTIONS, "device": "cpu", **changes})


def mean_rotation_error_deg(c2w: np.ndarray, true_c2w: np.ndarray) -> float:
    aligned = umeyama(c2w[:, :3, 3], true_c2w[:, :3, 3]).apply_c2w(c2w)
    return float(rotation_angles_deg(aligned[:, :3, :3], true_c2w[:, :3, :3]).mean())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    return write_tiny_case(tmp_path_factory.mktemp("case"))


def test_cameras_and_surface_of_a_ball(tiny: TinyCase, tmp_path: Path) -> None:
    # In photos of 48 pixels the windows of a closer look would be as large as the ball.
    config = options(steps=450, rays=256, epipolar={"steps": 300}, look={"shares": []})
    result = train(tiny.case, config, tmp_path / "out", tmp_path / "work", seed=1)
    before = mean_rotation_error_deg(tiny.case.cameras.c2w, tiny.true_c2w_world)
    after = mean_rotation_error_deg(result.cameras.c2w, tiny.true_c2w_world)
    assert before > 0.4
    assert after < 0.5 * before
    assert result.accepted in ("adjusted", "epipolar", "joint")
    assert result.verdict.figures["accepted_cameras"] == result.accepted
    assert result.verdict.status == "ok"
    figures = result.figures
    assert figures["heldout_epipolar_after_px"] < 0.5 * figures["heldout_epipolar_before_px"]
    assert figures["psnr_heldout_db"] > 21

    model = load_trained(tmp_path / "out")
    direction = torch.nn.functional.normalize(torch.randn(500, 3), dim=1)
    assert (model.sdf(direction * (RADIUS - 0.12)) < 0).float().mean() > 0.95
    assert (model.sdf(direction * (RADIUS + 0.12)) > 0).float().mean() > 0.95
    np.testing.assert_allclose(model.scale_mat, SCALE_MAT)
    rendered = model.render(model.K[0], model.c2w[0], model.width, model.height)
    photo = tiny.case.load_images()[0].astype(float)
    assert rendered["rgb"].shape == photo.shape and rendered["rgb"].dtype == np.uint8
    assert rendered["depth"].shape == rendered["opacity"].shape == photo.shape[:2]
    assert np.abs(rendered["rgb"] - photo).mean() < 25


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_backdrop_is_what_renders_show_beside_the_sphere(
    tiny: TinyCase, tmp_path: Path, order: str
) -> None:
    config = options(steps=10, color_order=order, stereo={"views": 0})
    train(tiny.case, config, tmp_path / "out", tmp_path / "work")
    model = load_trained(tmp_path / "out")
    K, c2w = model.K[0].copy(), model.c2w[0]
    K[:2, :2] /= 4  # a view so wide that most of its rays pass the unit sphere by
    grid = np.stack(np.meshgrid(np.arange(model.width), np.arange(model.height)), axis=-1)
    origins, directions = pixel_rays(K, c2w, grid.reshape(-1, 2))
    rays = RayBatch(*(torch.from_numpy(ends).float() for ends in (origins, directions)))
    beside = ~unit_sphere_interval(rays)[2].numpy()
    shown = model.render(K, c2w, model.width, model.height)["rgb"].reshape(-1, 3)
    assert beside.mean() > 0.3
    np.testing.assert_allclose(
        model.backdrop(origins, directions)[beside], shown[beside], atol=0.51
    )


def test_artifacts_agree_with_each_other(tiny: TinyCase, tmp_path: Path) -> None:
    result = train(tiny.case, options(), tmp_path / "out", tmp_path / "work")
    out = tmp_path / "out"
    cameras = load_idr_cameras(out / "cameras_refine_porf.npz")
    np.testing.assert_allclose(cameras.c2w, result.cameras.c2w, atol=1e-6)
    np.testing.assert_allclose(cameras.K, tiny.case.cameras.K, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(load_pose_text(out / "refined_pose.txt"), cameras.c2w, atol=1e-6)
    model = load_trained(out)
    np.testing.assert_allclose(model.c2w, result.cameras.c2w_normalised, atol=1e-6)
    history = json.loads((out / "history.json").read_text())
    assert history["columns"] == HISTORY_COLUMNS
    assert [row[0] for row in history["rows"]] == [10, 20, 30, 40]
    summary = json.loads((out / "train.json").read_text())
    assert len(summary["views"]) == len(tiny.case)
    assert summary["figures"]["accepted_cameras"] == result.accepted


def test_surface_is_trained_with_the_exported_cameras(tiny: TinyCase, tmp_path: Path) -> None:
    """When matches say that refined cameras are worse, the given ones are kept to the bit."""
    exact = write_tiny_case(tmp_path / "exact", disturbed_deg=0.0, noise_px=0.0)
    config = options(epipolar={"bundle_adjust": False, "steps": 30, "learning_rate": 0.5})
    progress = Notes()
    result = train(exact.case, config, tmp_path / "out", tmp_path / "work", progress=progress)
    assert result.accepted == "input"
    assert result.verdict.figures["accepted_cameras"] == "input"
    assert any("no refined cameras agree clearly better" in note for note in progress.notes)
    np.testing.assert_array_equal(result.cameras.c2w, exact.case.cameras.c2w)
    model = load_trained(tmp_path / "out")
    np.testing.assert_allclose(model.c2w, exact.case.cameras.c2w_normalised, atol=1e-6)
    names = [c.name for c in result.candidates]
    assert names == ["input", "epipolar", "joint"]
    assert result.candidates[1].error_px > result.candidates[0].error_px


class _Stop(Exception):
    pass


def _stop_at(monkeypatch: pytest.MonkeyPatch, step: int, action: Any) -> None:
    advance = JointTraining.advance

    def interrupted(self: JointTraining) -> None:
        advance(self)
        if self.step == step:
            action()

    monkeypatch.setattr(JointTraining, "advance", interrupted)


def _raise_stop() -> None:
    raise _Stop


@pytest.mark.parametrize("field", ["grid", "neus"])
def test_resume_gives_the_same_training_bit_by_bit(
    tiny: TinyCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    config = options(field=field, pose={"joint_start": 0.25})
    whole = train(tiny.case, config, tmp_path / "whole", tmp_path / "work_whole")
    with monkeypatch.context() as patch:
        _stop_at(patch, 27, _raise_stop)
        with pytest.raises(_Stop):
            train(tiny.case, config, tmp_path / "parts", tmp_path / "work")
    progress = Notes()
    parts = train(tiny.case, config, tmp_path / "parts", tmp_path / "work", progress=progress)
    assert "training continues at step 20 of 40" in progress.notes
    assert "epipolar" not in progress.phases
    assert parts.history == whole.history
    np.testing.assert_array_equal(parts.cameras.c2w, whole.cameras.c2w)
    states = [
        torch.load(tmp_path / name / "model.pt", weights_only=True)["field"]
        for name in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_sigterm_saves_a_checkpoint_and_exits_143(
    tiny: TinyCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        _stop_at(patch, 13, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(SystemExit) as stopped:
            train(tiny.case, options(), tmp_path / "out", tmp_path / "work")
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    assert not (tmp_path / "out").exists()
    progress = Notes()
    train(tiny.case, options(), tmp_path / "out", tmp_path / "work", progress=progress)
    assert "training continues at step 13 of 40" in progress.notes


def test_checkpoint_of_other_options_is_refused(tiny: TinyCase, tmp_path: Path) -> None:
    train(tiny.case, options(), tmp_path / "out", tmp_path / "work")
    with pytest.raises(InputError, match=r"train\.rays 128 → 64"):
        train(tiny.case, options(rays=64), tmp_path / "out2", tmp_path / "work")


def test_divergence_is_named_and_leaves_the_last_good_checkpoint(
    tiny: TinyCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    color, calls = GridSurface.color, [0]

    def broken(self: GridSurface, *arguments: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return color(self, *arguments) * (float("nan") if calls[0] > 25 else 1.0)

    with monkeypatch.context() as patch:
        patch.setattr(GridSurface, "color", broken)
        with pytest.raises(TrainingDiverged, match="near step 30 of 40"):
            train(tiny.case, options(), tmp_path / "out", tmp_path / "work")
    state = torch.load(tmp_path / "work" / "checkpoint.pt", weights_only=True)
    assert state["joint"]["step"] == 20
    assert all(t.isfinite().all() for t in state["joint"]["field"].values())


@pytest.mark.slow
def test_masks_leave_nothing_beside_the_object(tmp_path: Path) -> None:
    tiny = write_tiny_case(tmp_path / "case", disturbed_deg=0.0, masks=True)
    config = options(steps=150, rays=256, pose={"model": "fixed"})
    train(tiny.case, config, tmp_path / "out", tmp_path / "work")
    model = load_trained(tmp_path / "out")
    mask = tiny.case.load_masks()
    assert mask is not None
    opacity = model.render(model.K[0], model.c2w[0], model.width, model.height)["opacity"]
    assert opacity[mask[0]].mean() > 0.8
    assert opacity[~mask[0]].mean() < 0.2


@pytest.mark.parametrize("model", ["porf", "learn_pose", "fixed"])
@pytest.mark.parametrize("field", ["grid", "neus"])
def test_every_field_trains_with_every_pose_model(
    tiny: TinyCase, tmp_path: Path, field: str, model: str
) -> None:
    config = options(
        field=field,
        steps=6,
        rays=32,
        log_every=3,
        rays_from="one_view",
        pose={"model": model, "joint_start": 0, "settle_share": 0, "schedule": "constant"},
        epipolar={"steps": 0, "pairs_from": "one_view", "pairs_per_step": 20},
    )
    result = train(tiny.case, config, tmp_path / "out", tmp_path / "work")
    moved = np.abs(result.cameras.c2w - tiny.case.cameras.c2w).max()
    assert (moved == 0) == (model == "fixed")
    assert result.accepted == ("input" if model == "fixed" else "joint")
    colors = [row[HISTORY_COLUMNS.index("color")] for row in result.history]
    assert len(colors) == 2 and np.isfinite(colors).all()


def test_model_of_another_version_is_refused(tiny: TinyCase, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no trained surface"):
        load_trained(tmp_path)
    torch.save({"format": 99}, tmp_path / "model.pt")
    with pytest.raises(InputError, match="format 99"):
        load_trained(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"not a model")
    with pytest.raises(InputError, match="cannot be read"):
        load_trained(tmp_path)


def test_without_steps_cameras_come_from_matches_alone(tiny: TinyCase, tmp_path: Path) -> None:
    result = train(tiny.case, options(steps=0), tmp_path / "out", tmp_path / "work")
    before = mean_rotation_error_deg(tiny.case.cameras.c2w, tiny.true_c2w_world)
    after = mean_rotation_error_deg(result.cameras.c2w, tiny.true_c2w_world)
    assert after < 0.5 * before
    assert result.accepted in ("adjusted", "epipolar")
    offset = {"zero_init": False}  # the residual field's first poses are not the accepted ones
    other = train(tiny.case, options(steps=0, pose=offset), tmp_path / "o", tmp_path / "w")
    accepted = next(c for c in other.candidates if c.name == other.accepted)
    np.testing.assert_allclose(other.cameras.c2w_normalised, accepted.c2w.numpy(), atol=1e-5)
    exported = load_idr_cameras(tmp_path / "out" / "cameras_refine_porf.npz")
    np.testing.assert_allclose(exported.c2w, result.cameras.c2w, atol=1e-6)
    with pytest.raises(InputError, match="no trained surface") as told:
        load_trained(tmp_path / "out")
    assert "train.steps above 0" in str(told.value.hint)
    with pytest.raises(ValidationError, match="steps must be > 0"):
        options(steps=0, surface={"mode": "second_stage"})
