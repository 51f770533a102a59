"""Held-out matches tell a right model from wrong ones, and were not seen by what they judge."""

import copy
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from pipeline.sfm.colmap import quiet, registered_ids
from pipeline.sfm.heldout import SHARE, HeldOut, explain, hold_out, without_points_of
from pipeline.sfm.opinions import Opinion, best_opinion
from pipeline.sfm.twoview import TwoViewTable, read_two_views

VIEWS = 8


@pytest.fixture
def scene(tmp_path: Path) -> tuple[pycolmap.Reconstruction, TwoViewTable]:
    quiet()
    pycolmap.set_random_seed(4)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, VIEWS
    options.num_points3D = 300
    with pycolmap.Database.open(str(tmp_path / "d.db")) as database:
        model = pycolmap.synthesize_dataset(options, database)
    return model, read_two_views(tmp_path / "d.db")


def _observed(model: pycolmap.Reconstruction, held_out: HeldOut) -> int:
    """Observations in the model's points of features that were set aside."""
    count = 0
    for view, image_id in enumerate(held_out.image_ids):
        aside = held_out.tracks.xy_px[held_out.tracks.view == view]
        seen = np.array([p.xy for p in model.image(image_id).get_observation_points2D()])
        near = np.abs(seen[:, None] - aside[None]).max(axis=2) < 0.02
        count += int(near.any(axis=1).sum())
    return count


def test_a_tenth_is_set_aside_and_not_used(
    scene: tuple[pycolmap.Reconstruction, TwoViewTable],
) -> None:
    model, table = scene
    held_out = hold_out(table, seed=0)
    share = len(held_out.tracks) / model.num_points3D()
    assert share == pytest.approx(SHARE, abs=0.06)
    assert _observed(model, held_out) > 0
    left = without_points_of(model, held_out)
    assert _observed(left, held_out) == 0
    assert model.num_points3D() - left.num_points3D() == len(held_out.tracks)
    np.testing.assert_array_equal(hold_out(table, seed=0).tracks.xy_px, held_out.tracks.xy_px)


def test_a_right_model_explains_more_than_one_that_is_wrong_or_lacks_views(
    scene: tuple[pycolmap.Reconstruction, TwoViewTable],
) -> None:
    model, table = scene
    held_out = hold_out(table, seed=0)
    right = explain(model, held_out)
    assert right.share > 0.99
    assert right.median_px < 0.1
    ids = registered_ids(model)
    fewer = copy.deepcopy(model)
    for image_id in ids[:3]:
        fewer.deregister_frame(fewer.image(image_id).frame_id)
    assert explain(fewer, held_out).share == pytest.approx(5 / 8, abs=0.05)
    wrong = copy.deepcopy(model)
    for image_id, other in ((ids[0], ids[4]), (ids[1], ids[5])):
        for index in wrong.image(image_id).get_observation_point2D_idxs():
            wrong.delete_observation(image_id, index)  # nothing holds it where it belongs
        image = wrong.image(image_id)
        image.frame.set_cam_from_world(image.camera_id, model.image(other).cam_from_world())
    assert explain(wrong, held_out).share < 0.8


def _opinion(kind: str, confirmed: int, explained: float, registered: int = 20) -> Opinion:
    return Opinion(kind, registered, confirmed, 0.0, 4.0, explained, 0.3)


def test_held_out_matches_decide_between_mappings_confirmed_alike() -> None:
    first, second = _opinion("first", 20, 0.71), _opinion("second", 20, 0.93)
    assert best_opinion([first, second]) is second
    assert best_opinion([first, _opinion("second", 19, 0.93)]).kind == "second"
    assert best_opinion([_opinion("a", 0, 0.4), _opinion("b", 0, 0.6)]).kind == "b"


def test_what_others_confirm_goes_before_held_out_matches() -> None:
    """A mapping that nobody confirms may explain the matches of its own look-alikes."""
    assert best_opinion([_opinion("a", 20, 0.5), _opinion("b", 12, 0.9)]).kind == "a"
    assert best_opinion([_opinion("a", 19, 0.9), _opinion("b", 20, 0.9)]).kind == "b"
    assert best_opinion([_opinion("a", 20, 0.9), _opinion("b", 20, 0.9)]).kind == "a"
