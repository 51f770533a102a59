"""Views that an adjustment left behind, brought back by their matches."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.geometry.cameras import invert_pose, look_at
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.similarity import umeyama
from pipeline.porf import bundle_adjustment
from pipeline.porf.bundle_adjustment import Adjusted, IdealMatches
from pipeline.porf.config import TrainConfig
from pipeline.porf.detached import attached_views, resected
from pipeline.porf.epipolar import MatchTable
from pipeline.porf.lens import Lens
from pipeline.porf.trainer import train
from tests.porf.tiny_case import TINY_OPTIONS, TinyCase, write_tiny_case


def test_a_group_whose_matches_with_the_rest_do_not_fit_is_detached() -> None:
    pairs = [(0, 1, 1.0), (1, 2, 0.6), (2, 3, 0.4), (3, 4, 1.0), (0, 4, 0.1)]
    ref, src, fits = ([], [], [])
    for i, j, share in pairs:
        ref += [i] * 10
        src += [j] * 10
        fits += [k < 10 * share for k in range(10)]
    attached = attached_views(np.array(ref), np.array(src), np.array(fits), 6)
    assert attached.tolist() == [True, True, True, False, False, False]


@pytest.fixture
def seen() -> tuple[NDArray, NDArray, NDArray, pycolmap.Camera]:
    """Pixels (IDR) of points, the points, the pose that sees them, its camera."""
    points = np.random.default_rng(0).normal(size=(60, 3))
    c2w = look_at(np.array([6.0, 1.0, 2.0]), np.zeros(3), np.array([0.0, 0.0, 1.0]))
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=200, height=200, params=[300, 0.5, 0.5])
    inside = points @ invert_pose(c2w)[:3, :3].T + invert_pose(c2w)[:3, 3]
    return 300 * inside[:, :2] / inside[:, 2:], points, c2w, camera


def test_a_pose_is_found_among_wrong_matches(
    seen: tuple[NDArray, NDArray, NDArray, pycolmap.Camera],
) -> None:
    xy_px, points, c2w, camera = seen
    xy_px = xy_px.copy()
    xy_px[::2] = np.random.default_rng(1).uniform(-100, 100, size=xy_px[::2].shape)
    found = resected(xy_px, points, camera, 4.0)
    assert found is not None
    assert np.allclose(found, c2w, atol=1e-6)


def test_no_pose_of_points_that_agree_on_none(
    seen: tuple[NDArray, NDArray, NDArray, pycolmap.Camera],
) -> None:
    xy_px, points, _, camera = seen
    assert resected(xy_px[:14], points[:14], camera, 4.0) is None
    noise_px = np.random.default_rng(1).uniform(-100, 100, size=xy_px.shape)
    assert resected(noise_px, points, camera, 4.0) is None


def test_neighbours_that_drifted_away_together_come_back(tmp_path: Path) -> None:
    """Two views agree with each other and with nobody else."""
    tiny = write_tiny_case(tmp_path, views=16, neighbours=4)
    table = MatchTable.from_matches(tiny.case.matches, both_directions=False)
    ideal = IdealMatches(table, torch.from_numpy(tiny.case.cameras.K))
    lens = Lens.none()
    drifted = _drifted(tiny.true_c2w_world, [5, 6])
    assert _largest_error_deg(drifted, tiny) > 10
    found = ideal.returned(drifted, lens)
    assert found is not None
    assert _largest_error_deg(found, tiny) < 0.2
    assert np.array_equal(np.delete(found, [5, 6], 0), np.delete(drifted, [5, 6], 0))
    assert ideal.returned(found, lens) is None


def test_rounds_begin_again_from_what_came_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown with rounds that move nothing: real ones need no help in so easy a case."""
    began = []

    def nothing_moves(_: IdealMatches, poses: NDArray, lens: Lens, *options: object) -> Adjusted:
        began.append(poses)
        return Adjusted(torch.from_numpy(poses), lens, 0, 0.0)

    monkeypatch.setattr(bundle_adjustment, "_rounds", nothing_moves)
    tiny = write_tiny_case(tmp_path, views=16, neighbours=4)
    table = MatchTable.from_matches(tiny.case.matches, both_directions=False)
    drifted = torch.from_numpy(_drifted(tiny.true_c2w_world, [5, 6]))
    K = torch.from_numpy(tiny.case.cameras.K)
    found = bundle_adjustment.bundle_adjust(table, drifted, K, "given")
    assert len(began) == 2
    assert _largest_error_deg(began[0], tiny) > 10
    assert _largest_error_deg(found.c2w.numpy(), tiny) < 0.2


def test_cameras_that_their_matches_contradict_are_named(tmp_path: Path) -> None:
    """Held fixed by an option, two wrong cameras stay wrong, but not unnoticed."""
    tiny = write_tiny_case(tmp_path / "case", views=16, neighbours=4)
    cameras = tiny.case.cameras
    warned = {}
    for name, c2w in {
        "right": tiny.true_c2w_world,
        "wrong": _drifted(tiny.true_c2w_world, [5, 6]),
    }.items():
        case = replace(tiny.case, cameras=replace(cameras, c2w=c2w))
        options = {**TINY_OPTIONS, "steps": 0, "pose": {"model": "fixed"}, "device": "cpu"}
        config = TrainConfig.model_validate(options)
        result = train(case, config, tmp_path / name, tmp_path / f"work_{name}", 0)
        warned[name] = " ".join(result.verdict.reasons)
    assert "contradict" not in warned["right"]
    assert "the cameras of 005.png, 006.png contradict their matches" in warned["wrong"]


def _drifted(c2w: NDArray, views: list[int]) -> NDArray:
    """Views moved together about the frame's origin."""
    moved, about = c2w.copy(), np.eye(4)
    about[:3, :3] = Rotation.from_rotvec([0.3, 0.3, 0.0]).as_matrix()
    moved[views] = about @ c2w[views]
    return moved


def _largest_error_deg(c2w: NDArray, tiny: TinyCase) -> float:
    """Of the rotations after a similarity on the centres of the views that stayed."""
    true, stayed = tiny.true_c2w_world, np.delete(np.arange(len(c2w)), [5, 6])
    aligned = umeyama(c2w[stayed, :3, 3], true[stayed, :3, 3]).apply_c2w(c2w)
    return float(rotation_angles_deg(aligned[:, :3, :3], true[:, :3, :3]).max())
