"""Weak links and gaps are named where they are, and nowhere else."""

import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray

from pipeline.sfm.network import (
    LOOSE_POINTS,
    WEAK_POINTS,
    best_partner,
    inspect_network,
    leave_out_loose,
)
from pipeline.sfm.twoview import TwoViewTable, VerifiedPair

FOCAL, SIDE = 800.0, 600


def _ring(azimuths_deg: list[float], inward: bool = True) -> list[NDArray]:
    """World-to-camera (3, 4) of cameras on a circle that look at its middle, or away from it."""
    poses = []
    for azimuth in np.radians(azimuths_deg):
        centre = 4 * np.array([np.cos(azimuth), np.sin(azimuth), 0.3])
        forward = -centre / np.linalg.norm(centre) * (1 if inward else -1)
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        poses.append(np.concatenate([rotation, -(rotation @ centre)[:, None]], axis=1))
    return poses


def _model(poses: list[NDArray], seen_by: list[list[int]]) -> pycolmap.Reconstruction:
    """Cameras at these poses; one point for each entry, seen by the photos it lists."""
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        camera_id=1, model="SIMPLE_PINHOLE", width=SIDE, height=SIDE, params=[FOCAL, 300, 300]
    )
    model.add_camera_with_trivial_rig(camera)
    for view, pose in enumerate(poses, start=1):
        count = sum(view - 1 in views for views in seen_by)
        image = pycolmap.Image(
            name=f"{view:02d}.jpg", camera_id=1, image_id=view, keypoints=np.zeros((count, 2))
        )
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(pose))
    used = dict.fromkeys(range(len(poses)), 0)
    for number, views in enumerate(seen_by):
        track = pycolmap.Track()
        for view in views:
            track.add_element(view + 1, used[view])
            used[view] += 1
        model.add_point3D(np.array([0.01 * number, 0.0, 0.0]), track)
    return model


def _names(model: pycolmap.Reconstruction) -> dict[int, str]:
    return {i: model.image(i).name for i in model.reg_image_ids()}


def _chain(count: int, points: int) -> list[list[int]]:
    """Each photo shares `points` points with the next."""
    return [[i, i + 1] for i in range(count - 1) for _ in range(points)]


def test_a_full_ring_has_neither_gaps_nor_weak_links() -> None:
    model = _model(_ring(list(range(0, 360, 20))), _chain(18, 60))
    network = inspect_network(model, _names(model))
    assert network.gaps == []
    assert network.weak_links == []
    assert network.median_step_deg == pytest.approx(20, rel=0.1)


def test_the_gap_in_a_ring_is_named_by_its_two_ends() -> None:
    azimuths = [a for a in range(0, 360, 12) if not 90 < a < 140]
    model = _model(_ring(azimuths), _chain(len(azimuths), 60))
    (gap,) = inspect_network(model, _names(model)).gaps
    before = azimuths.index(84)
    assert (gap.first, gap.second) == (f"{before + 1:02d}.jpg", f"{before + 2:02d}.jpg")
    assert gap.angle_deg == pytest.approx(144 - 84, abs=5)


def test_an_arc_that_was_not_meant_to_close_has_no_gap() -> None:
    azimuths = list(range(0, 150, 10))
    model = _model(_ring(azimuths), _chain(len(azimuths), 60))
    assert inspect_network(model, _names(model)).gaps == []


def test_cameras_that_look_at_different_things_have_no_gaps() -> None:
    azimuths = [a for a in range(0, 360, 12) if not 90 < a < 140]
    model = _model(_ring(azimuths, inward=False), _chain(len(azimuths), 60))
    network = inspect_network(model, _names(model))
    assert network.gaps == []
    assert network.median_step_deg is None


def test_a_weak_link_names_the_smaller_group_and_its_best_partner() -> None:
    weak = WEAK_POINTS - 12
    strong = [*_chain(7, 60), *([[7, 8]] * 60), *([[8, 9]] * 60)]
    model = _model(_ring(list(range(0, 200, 20))), [*strong, *([[6, 7]] * weak), [2, 8], [0, 9]])
    (link,) = inspect_network(model, _names(model)).weak_links
    assert (link.first, link.second, link.points) == ("08.jpg", "07.jpg", weak)
    assert link.group == ["08.jpg", "09.jpg", "10.jpg"]


def test_the_best_partner_has_the_most_matches() -> None:
    def pair(a: int, b: int, count: int) -> VerifiedPair:
        return VerifiedPair(a, b, np.zeros((count, 2), dtype=np.int64))

    table = TwoViewTable({}, [pair(1, 2, 90), pair(1, 5, 20), pair(2, 5, 40), pair(3, 5, 25)])
    assert best_partner(table, {5}, {1, 2, 3}) == (5, 2)
    assert best_partner(table, {1, 2}, {3}) == (0, 0)


def test_a_photo_that_hangs_by_next_to_nothing_is_left_out() -> None:
    loose = [[5, 4]] * (LOOSE_POINTS - 1)
    model = _model(_ring(list(range(0, 60, 10))), _chain(5, 60) + loose)
    assert leave_out_loose(model) == {"06.jpg": LOOSE_POINTS - 1}
    assert sorted(_names(model).values()) == [f"{n:02d}.jpg" for n in range(1, 6)]
    assert leave_out_loose(model) == {}


def test_a_photo_at_the_limit_stays() -> None:
    model = _model(_ring(list(range(0, 60, 10))), _chain(5, 60) + [[5, 4]] * LOOSE_POINTS)
    assert leave_out_loose(model) == {}
