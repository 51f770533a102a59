"""Where a mapping leaves doubt, the one that others confirm is taken."""

import copy
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from pipeline.progress import NullProgress
from pipeline.sfm.colmap import quiet, registered_ids
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.consistency import Consistency
from pipeline.sfm.mapping import Mapping
from pipeline.sfm.opinions import confirmed_views, is_doubtful, most_confirmed
from pipeline.sfm.twoview import read_two_views

VIEWS = 8


@pytest.fixture
def synthetic(tmp_path: Path) -> pycolmap.Reconstruction:
    quiet()
    pycolmap.set_random_seed(2)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, VIEWS
    options.num_points3D = 150
    with pycolmap.Database.open(str(tmp_path / "d.db")) as database:
        return pycolmap.synthesize_dataset(options, database)


def _misplaced(model: pycolmap.Reconstruction, count: int) -> pycolmap.Reconstruction:
    """The first `count` views stand where their successors are."""
    wrong = copy.deepcopy(model)
    ids = registered_ids(model)
    for n in range(count):
        image = wrong.image(ids[n])
        pose = model.image(ids[(n + 1) % len(ids)]).cam_from_world()
        image.frame.set_cam_from_world(image.camera_id, pose)
    return wrong


def test_views_that_two_models_turn_alike_are_confirmed(
    synthetic: pycolmap.Reconstruction,
) -> None:
    ids = registered_ids(synthetic)
    turned = copy.deepcopy(synthetic)
    turn = pycolmap.Rotation3d(np.array([0.2, 0.5, -0.3]))
    turned.transform(pycolmap.Sim3d(2.0, turn, np.array([1.0, 2.0, 3.0])))
    assert confirmed_views(synthetic, [turned]) == set(ids)
    wrong = _misplaced(synthetic, 2)
    assert confirmed_views(wrong, [turned]) == set(ids[2:])
    assert confirmed_views(wrong, []) == set()


def test_doubt_has_its_reasons(synthetic: pycolmap.Reconstruction) -> None:
    sound = Consistency(20, [])
    assert not is_doubtful(Mapping([synthetic], relaxed=False), sound, VIEWS)
    assert is_doubtful(Mapping([synthetic], relaxed=True), sound, VIEWS)
    assert is_doubtful(Mapping([synthetic, synthetic], relaxed=False), sound, VIEWS)
    assert is_doubtful(Mapping([synthetic], relaxed=False), sound, 2 * VIEWS)
    pairs = [(1, 2), (1, 3), (1, 4)]
    assert is_doubtful(Mapping([synthetic], relaxed=False), Consistency(20, pairs), VIEWS)


def test_a_wrong_first_mapping_gives_way(
    synthetic: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    first = Mapping([_misplaced(synthetic, 5)], relaxed=False)
    best, report = most_confirmed(
        first,
        read_two_views(tmp_path / "d.db"),
        tmp_path / "d.db",
        tmp_path,
        tmp_path,
        VIEWS,
        SfmConfig(threads=1),
        0,
        NullProgress(),
    )
    assert report["taken"] != "incremental"
    assert confirmed_views(best.models[0], [synthetic]) == set(registered_ids(synthetic))
    asked = {opinion["kind"]: opinion for opinion in report["opinions"]}
    assert len(asked) == 3
    assert asked["incremental"]["confirmed"] < VIEWS
    assert asked["incremental"]["contradicting_share"] > 0.2
    assert asked[report["taken"]]["confirmed"] == VIEWS
