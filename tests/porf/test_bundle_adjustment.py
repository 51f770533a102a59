"""Bundle adjustment of matches' tracks, against cameras that are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.formats.matches import ViewMatches
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.similarity import umeyama
from pipeline.porf import lens as lens_module
from pipeline.porf.bundle_adjustment import bundle_adjust
from pipeline.porf.config import EpipolarConfig
from pipeline.porf.epipolar import MatchTable
from pipeline.porf.first_cameras import find_first_cameras
from pipeline.porf.gate import Gate, with_heldout_marks
from pipeline.porf.lens import Lens
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


def test_disturbed_cameras_are_found_again(tiny: TinyCase) -> None:
    table, _, c2w, K = _parts(tiny)
    before = _rotation_error_deg(c2w, tiny)
    result = bundle_adjust(table, c2w, K, "given")
    assert before > 0.4
    assert _rotation_error_deg(result.c2w, tiny) < 0.15 * before
    assert result.observations > 100
    assert result.lens == Lens.none()
    again = bundle_adjust(table, c2w, K, "given")
    assert torch.equal(again.c2w, result.c2w)  # nothing is drawn


def test_loose_matches_among_exact_ones_do_little_harm_to_a_loss_that_fits(tiny: TinyCase) -> None:
    table, gate, c2w, K = _parts(tiny)
    rng = np.random.default_rng(0)
    loose = rng.random((len(table.points_px), 1)) < 0.3
    off_px = torch.from_numpy(rng.normal(size=(len(loose), 4)) * loose)
    other = replace(table, points_px=table.points_px + off_px.to(table.points_px.dtype))
    fixed, fitted = (
        _rotation_error_deg(bundle_adjust(other, c2w, K, "given", fit_loss=fit).c2w, tiny)
        for fit in (False, True)
    )
    assert fitted < 0.15 < 0.5 * fixed
    start, judged = find_first_cameras(gate, other, EpipolarConfig(), NullProgress())
    assert start is judged[-1]
    assert _rotation_error_deg(start.c2w, tiny) < 0.15


def test_views_of_different_intrinsics(tiny: TinyCase) -> None:
    """The same rays in other pixels lead to the truth as well."""
    table, _, c2w, K = _parts(tiny)
    zoomed = K.clone()
    zoomed[::2, :2] *= 2.0  # every other photo at twice the size
    view = torch.stack([table.pair_ref, table.pair_src], dim=1)[table.pair_of_match]
    factor = 1.0 + (view % 2 == 0).repeat_interleave(2, dim=1)
    other = replace(table, points_px=table.points_px * factor)
    result = bundle_adjust(other, c2w, zoomed, "given")
    assert _rotation_error_deg(result.c2w, tiny) < 0.15 * _rotation_error_deg(c2w, tiny)


def test_without_a_track_nothing_moves(tiny: TinyCase) -> None:
    table, _, c2w, K = _parts(tiny)
    none = table.select(torch.zeros(0, dtype=torch.long))
    result = bundle_adjust(none, c2w, K, "radial")
    assert result.observations == 0
    assert torch.equal(result.c2w, c2w.double())


def _distorted(xy: torch.Tensor, K: torch.Tensor, k1: float, k2: float) -> torch.Tensor:
    seen = (xy - K[:2, 2]) / K[[0, 1], [0, 1]]
    r2 = (seen**2).sum(1, keepdim=True)
    return seen * (1 + k1 * r2 + k2 * r2**2) * K[[0, 1], [0, 1]] + K[:2, 2]


def test_a_lens_undoes_its_distortion(tiny: TinyCase) -> None:
    table, _, _, K = _parts(tiny)
    lens = Lens(1.0, (0.0, 0.0), (0.08, -0.03))
    ends = [_distorted(table.points_px[:, k : k + 2].double(), K[0], 0.08, -0.03) for k in (0, 2)]
    distorted = replace(table, points_px=torch.cat(ends, dim=1))
    straight = lens.undistorted(distorted, K).points_px
    torch.testing.assert_close(straight, table.points_px.double(), atol=1e-6, rtol=0)
    assert lens.displacement_px(K[0].numpy(), 64, 48) > 0.1
    assert Lens.none().undistorted(distorted, K) is distorted


def test_distortion_that_was_left_is_found_and_undone(tiny: TinyCase) -> None:
    matches = [
        replace(
            view,
            matches_px=[
                np.concatenate(
                    [
                        _distorted(torch.from_numpy(rows[:, k : k + 2]).double(), K[0], 0.3, 0.1)
                        for k in (0, 2)
                    ],
                    axis=1,
                ).astype(np.float32)
                for rows in view.matches_px
            ],
        )
        for view in with_heldout_marks(tiny.case.matches, 0)
        for K in [torch.from_numpy(tiny.case.cameras.K)]
    ]
    K, c2w = (torch.from_numpy(a) for a in (tiny.case.cameras.K, tiny.case.cameras.c2w_normalised))
    gate = Gate(matches, K, c2w)
    table = MatchTable.from_matches(matches, both_directions=False)
    start, judged = find_first_cameras(gate, table, EpipolarConfig(calibrate=True), NullProgress())
    assert [c.name for c in judged] == ["input", "adjusted", "calibrated", "calibrated_radial"]
    assert start.name == "calibrated_radial"
    assert start.lens.distortion[0] == pytest.approx(0.3, abs=0.1)
    assert start.error_px < judged[2].error_px


def test_a_lens_is_weighed_against_the_given_one() -> None:
    found = Lens(1.1, (0.04, 0.0), (0.1, 0.0))
    unknown, known = np.diag([1e6] * 5), np.diag([1e-12] * 5)
    assert found.regularised(unknown).zoom == pytest.approx(1.0, abs=1e-6)
    assert np.allclose(found.regularised(unknown).distortion, 0, atol=1e-6)
    assert found.regularised(known).zoom == pytest.approx(1.1)
    half = found.regularised(np.diag([0.05**2, 0.02**2, 0.02**2]))
    assert half.zoom == pytest.approx(1.05)
    assert half.shift == pytest.approx((0.02, 0.0))
    assert half.distortion == (0.0, 0.0)


def test_a_lens_that_matches_hardly_determine_stays_near_the_given_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three neighbouring views and noise of a pixel: their own optimum is nowhere near."""
    noisy = write_tiny_case(tmp_path, disturbed_deg=0.0, noise_px=1.0, views=24, neighbours=1)
    near = [[view.sources.index(j) for j in view.sources if j < 3] for view in noisy.case.matches]
    matches = [
        ViewMatches([view.sources[k] for k in ks], [view.matches_px[k] for k in ks],
                    [view.heldout[k] for k in ks])
        for view, ks in zip(noisy.case.matches[:3], near, strict=False)
    ]  # fmt: skip
    table = MatchTable.from_matches(matches, both_directions=False)
    K = torch.from_numpy(noisy.case.cameras.K)[:3]
    c2w = torch.from_numpy(noisy.case.cameras.c2w_normalised)[:3]
    drawn = bundle_adjust(table, c2w, K, "pinhole").lens
    monkeypatch.setattr(lens_module, "_GIVEN_STD", (1e3,) * 5)
    free = bundle_adjust(table, c2w, K, "pinhole").lens
    assert np.linalg.norm(free.shift) > 0.2
    assert np.linalg.norm(drawn.shift) < 0.05
    assert drawn.zoom == pytest.approx(1.0, abs=0.05)


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
    assert [c.name for c in judged] == ["input", "adjusted", "calibrated", "calibrated_radial"]
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
    off = EpipolarConfig(bundle_adjust=False)
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
