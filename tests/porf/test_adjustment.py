"""Bundle adjustment on epipolar distances, against cameras that are known."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.similarity import umeyama
from pipeline.porf import adjustment
from pipeline.porf.adjustment import adjust
from pipeline.porf.config import EpipolarConfig
from pipeline.porf.epipolar import MatchTable, symmetric_epipolar_errors_px
from pipeline.porf.first_cameras import find_first_cameras
from pipeline.porf.gate import Gate, with_heldout_marks
from pipeline.progress import NullProgress
from tests.porf.tiny_case import TinyCase, write_tiny_case


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    return write_tiny_case(tmp_path_factory.mktemp("case"))


def _rotation_error_deg(c2w: torch.Tensor, tiny: TinyCase) -> float:
    world = c2w.numpy()
    aligned = umeyama(world[:, :3, 3], tiny.true_c2w_world[:, :3, 3]).apply_c2w(world)
    return float(rotation_angles_deg(aligned[:, :3, :3], tiny.true_c2w_world[:, :3, :3]).mean())


def _parts(tiny: TinyCase) -> tuple[MatchTable, Gate, torch.Tensor, torch.Tensor]:
    matches = with_heldout_marks(tiny.case.matches, 0)
    K = torch.from_numpy(tiny.case.cameras.K)
    c2w = torch.from_numpy(tiny.case.cameras.c2w_normalised)
    return MatchTable.from_matches(matches, both_directions=False), Gate(matches, K, c2w), c2w, K


def test_derivatives_are_those_of_the_distance(tiny: TinyCase) -> None:
    table, _, c2w, K = _parts(tiny)
    table = adjustment._on_cpu(table)
    F = adjustment.fundamental_matrices(table.pair_ref, table.pair_src, c2w, K)
    rows = slice(0, 40)
    distance, slope = adjustment._distances(table, F, rows)
    true = symmetric_epipolar_errors_px(table, c2w, K)[rows]
    torch.testing.assert_close(distance.abs(), true, rtol=1e-4, atol=1e-4)
    owner = table.pair_of_match[rows]
    for entry in range(9):
        step = 1e-6 * F.abs().amax(dim=(1, 2))
        moved = [F.clone(), F.clone()]
        for F_moved, sign in zip(moved, (1, -1), strict=True):
            F_moved.view(-1, 9)[:, entry] += sign * step
        up, down = (adjustment._distances(table, f, rows)[0] for f in moved)
        numeric = (up - down) / (2 * step[owner])
        torch.testing.assert_close(
            slope[:, entry], numeric, rtol=1e-4, atol=1e-4 * float(numeric.abs().max())
        )


def test_disturbed_cameras_are_found_again(tiny: TinyCase) -> None:
    table, _, c2w, K = _parts(tiny)
    before = _rotation_error_deg(c2w, tiny)
    result = adjust(table, c2w, K, calibrate=False)
    assert before > 0.4
    assert _rotation_error_deg(result.c2w, tiny) < 0.15 * before
    assert result.cost_after < 0.1 * result.cost_before
    assert torch.equal(result.K, K)
    again = adjust(table, c2w, K, calibrate=False)
    assert torch.equal(again.c2w, result.c2w)  # nothing is drawn


def test_a_wrong_calibration_is_found_and_needs_evidence(tiny: TinyCase) -> None:
    """The principal point 2 pixels off and the focal length 4% too long."""
    table, _, c2w, K = _parts(tiny)
    matches = with_heldout_marks(tiny.case.matches, 0)
    wrong = K.clone()
    wrong[:, :2, :2] *= 1.04
    wrong[:, 0, 2] += 2.0
    gate = Gate(matches, wrong, c2w)
    options = EpipolarConfig(calibrate=True)
    start, judged = find_first_cameras(gate, table, options, NullProgress())
    assert [c.name for c in judged] == ["input", "adjusted", "calibrated"]
    assert start.name == "calibrated"
    np.testing.assert_allclose(start.K[0, 0, 0], K[0, 0, 0], rtol=0.02)
    np.testing.assert_allclose(start.K[0, :2, 2], K[0, :2, 2], atol=0.8)
    assert _rotation_error_deg(start.c2w, tiny) < 0.5 * _rotation_error_deg(judged[1].c2w, tiny)


def test_a_right_calibration_is_kept(tiny: TinyCase) -> None:
    table, gate, _, K = _parts(tiny)
    options = EpipolarConfig(calibrate=True)
    start, _ = find_first_cameras(gate, table, options, NullProgress())
    assert start.name == "adjusted"
    assert torch.equal(start.K, K)


def test_options_switch_the_parts_off(tiny: TinyCase) -> None:
    table, gate, _, _ = _parts(tiny)
    off = EpipolarConfig(adjust_iterations=0)
    assert find_first_cameras(gate, table, off, NullProgress())[0].name == "input"
    _, judged = find_first_cameras(gate, table, EpipolarConfig(), NullProgress())
    assert [c.name for c in judged] == ["input", "adjusted"]


def test_a_gain_that_chance_could_bring_keeps_the_given_cameras(tmp_path: Path) -> None:
    """From the truth on, fitting the noise of some matches helps the others hardly or not."""
    exact = write_tiny_case(tmp_path, disturbed_deg=0.0)
    table, gate, _, _ = _parts(exact)
    start, judged = find_first_cameras(gate, table, EpipolarConfig(), NullProgress())
    assert [c.name for c in judged] == ["input", "adjusted"]
    assert start.name == "input"
    assert gate.evidence(judged[1], judged[0]) < 3


def test_the_frame_stays(tiny: TinyCase) -> None:
    table, gate, c2w, _ = _parts(tiny)
    start, _ = find_first_cameras(gate, table, EpipolarConfig(), NullProgress())
    similarity = umeyama(start.c2w[:, :3, 3].numpy(), c2w[:, :3, 3].numpy())
    np.testing.assert_allclose(similarity.matrix, np.eye(4), atol=1e-8)


def test_training_exports_the_calibration(tiny: TinyCase, tmp_path: Path) -> None:
    """A case with a wrong principal point: cameras, model and figures carry the new one."""
    from dataclasses import replace  # noqa: PLC0415

    from pipeline.formats.idr import load_idr_cameras  # noqa: PLC0415
    from pipeline.porf.config import TrainConfig  # noqa: PLC0415
    from pipeline.porf.trained import load_trained  # noqa: PLC0415
    from pipeline.porf.trainer import train  # noqa: PLC0415
    from tests.porf.tiny_case import TINY_OPTIONS  # noqa: PLC0415

    wrong = tiny.case.cameras.K.copy()
    wrong[:, 0, 2] += 2.0
    case = replace(tiny.case, cameras=replace(tiny.case.cameras, K=wrong))
    options = {**TINY_OPTIONS, "steps": 10, "stereo": {"views": 0}, "epipolar": {"calibrate": True}}
    result = train(case, TrainConfig.model_validate(options), tmp_path / "out", tmp_path / "work")
    assert result.figures["principal_point_change_px"][0] == pytest.approx(-2.0, abs=0.2)
    exported = load_idr_cameras(tmp_path / "out" / "cameras_refine_porf.npz")
    np.testing.assert_allclose(exported.K[0, 0, 2], tiny.case.cameras.K[0, 0, 2], atol=0.2)
    np.testing.assert_allclose(load_trained(tmp_path / "out").K, exported.K, atol=1e-6)
