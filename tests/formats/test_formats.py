"""Files shared with other programs survive a round trip and refuse what they must."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.formats.case import load_case
from pipeline.formats.idr import IdrCameras, load_idr_cameras, make_scale_mat, save_idr_cameras
from pipeline.formats.matches import ViewMatches, load_matches, read_npz_arrays, save_matches
from pipeline.formats.poses import load_pose_text, save_pose_text
from pipeline.formats.views import ViewRecord, load_views, registered_names, save_views
from pipeline.geometry.cameras import look_at


def ring_cameras(count: int = 5) -> IdrCameras:
    K = np.array([[500.0, 0, 318.2], [0, 505.0, 241.7], [0, 0, 1]])
    angles = np.linspace(0, np.pi, count)
    centres = np.stack([3 * np.cos(angles), 3 * np.sin(angles), np.full(count, 1.5)], axis=1)
    up, target = np.array([0.0, 0, 1]), np.array([0.1, 0.2, 0.3])
    c2w = np.stack([look_at(c, target, up) for c in centres])
    return IdrCameras(np.repeat(K[None], count, axis=0), c2w, make_scale_mat(target, 1.7))


def two_view_matches(rng: np.random.Generator) -> list[ViewMatches]:
    pair = rng.uniform(0, 300, (7, 4)).astype(np.float32)
    held = np.arange(7) % 3 == 0
    return [
        ViewMatches([1], [pair], [held]),
        ViewMatches([0], [pair[:, [2, 3, 0, 1]]], [held]),
    ]


def test_cameras_survive_a_round_trip(tmp_path: Path) -> None:
    cameras = ring_cameras()
    save_idr_cameras(tmp_path / "cameras.npz", cameras)
    loaded = load_idr_cameras(tmp_path / "cameras.npz")
    np.testing.assert_allclose(loaded.K, cameras.K, atol=1e-8)
    np.testing.assert_allclose(loaded.c2w, cameras.c2w, atol=1e-10)
    np.testing.assert_allclose(loaded.scale_mat, cameras.scale_mat)
    back = loaded.with_normalised_poses(loaded.c2w_normalised)
    np.testing.assert_allclose(back.c2w, cameras.c2w, atol=1e-10)


def test_real_cameras_decompose(shared: Path) -> None:
    cameras = load_idr_cameras(shared / "data/dtu65/cameras.npz")
    assert len(cameras) == 49
    assert np.allclose(cameras.K[:, 0, 0], cameras.K[0, 0, 0], rtol=1e-4)
    assert np.abs(np.linalg.norm(cameras.c2w_normalised[:, :3, 3], axis=1) - 2.5).max() < 2


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 broken"])
def test_damaged_camera_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cameras.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="camera"):
        load_idr_cameras(path)


def test_cameras_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", world_mat_0=np.full((4, 4), np.nan))
    with pytest.raises(InputError, match="finite"):
        load_idr_cameras(tmp_path / "c.npz")


@pytest.mark.parametrize(
    "wrong",
    [
        {"heldout": np.array([True, None], dtype=object)},
        {"match": np.float32(3)},
        {"match": np.zeros((2, 5, 3), np.float32)},
        {"src_idx": np.array(["one", "two"])},
    ],
)
def test_arrays_that_are_no_matches_are_refused(tmp_path: Path, wrong: dict) -> None:
    right = {"src_idx": np.array([1, 2]), "match": np.zeros((2, 5, 4), np.float32)}
    np.savez(tmp_path / "000000.npz", **{**right, **wrong})
    with pytest.raises(InputError, match=r"000000\.npz"):
        load_matches(tmp_path, 3)


def test_matches_survive_and_the_original_reader_loads_them(tmp_path: Path) -> None:
    views = two_view_matches(np.random.default_rng(0))
    save_matches(tmp_path, views)
    loaded = load_matches(tmp_path, 2)
    np.testing.assert_array_equal(loaded[0].matches_px[0], views[0].matches_px[0])
    np.testing.assert_array_equal(loaded[1].heldout[0], views[1].heldout[0])
    plain = np.load(tmp_path / "000000.npz", allow_pickle=True)  # as the original code reads
    assert list(plain["src_idx"]) == [1]
    np.testing.assert_array_equal(plain["match"][0], views[0].matches_px[0])


def test_matches_that_numpy_stacked_and_views_without_a_file(tmp_path: Path) -> None:
    """Pairs of equal length become one array where nobody asks for objects."""
    rows = np.random.default_rng(2).uniform(0, 99, (2, 5, 4))
    np.savez(tmp_path / "000001.npz", src_idx=np.array([0, 2]), match=rows)
    loaded = load_matches(tmp_path, 3)
    assert [view.sources for view in loaded] == [[], [0, 2], []]
    np.testing.assert_array_equal(loaded[1].matches_px, rows.astype(np.float32))
    assert not np.any(loaded[1].heldout)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "owned",))

    holder = np.empty(1, dtype=object)
    holder[0] = Evil()
    np.savez(tmp_path / "000000.npz", src_idx=np.array([0]), match=holder)
    with pytest.raises(InputError, match="refused"):
        read_npz_arrays(tmp_path / "000000.npz")
    assert not (tmp_path / "owned").exists()
    assert pickle.loads(pickle.dumps(1)) == 1  # the attack itself was a valid pickle


def test_a_source_view_out_of_range_is_refused(tmp_path: Path) -> None:
    save_matches(tmp_path, [ViewMatches([9], [np.zeros((3, 4))], [np.zeros(3, bool)])])
    with pytest.raises(InputError, match="9"):
        load_matches(tmp_path, 1)


def test_views_and_poses_survive(tmp_path: Path) -> None:
    views = [
        ViewRecord(index=0, name="b.jpg", registered=True),
        ViewRecord(index=None, name="a.jpg", registered=False, reason="zero bytes"),
        ViewRecord(index=1, name="ü.jpg", registered=True),
    ]
    save_views(tmp_path / "views.json", views)
    assert load_views(tmp_path / "views.json") == views
    assert registered_names(views) == ["b.jpg", "ü.jpg"]
    c2w = ring_cameras().c2w
    save_pose_text(tmp_path / "refined_pose.txt", c2w)
    np.testing.assert_allclose(load_pose_text(tmp_path / "refined_pose.txt"), c2w, atol=1e-8)


def make_case(folder: Path, count: int = 2) -> None:
    (folder / "image").mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (8, 6), (i, 0, 0)).save(folder / f"image/{i:03d}.png")
    save_idr_cameras(folder / "cameras_colmap.npz", ring_cameras(count))
    save_matches(folder / "colmap_matches", two_view_matches(np.random.default_rng(1)))


def test_a_case_opens(tmp_path: Path) -> None:
    make_case(tmp_path)
    case = load_case(tmp_path, tmp_path)
    assert (len(case), case.width, case.height) == (2, 8, 6)
    assert case.load_images().shape == (2, 6, 8, 3)
    assert case.load_masks() is None


def test_cases_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    make_case(tmp_path)
    Image.new("RGB", (8, 6)).save(tmp_path / "image/002.png")
    with pytest.raises(InputError, match="3 images but 2 cameras"):
        load_case(tmp_path, tmp_path)
    Image.new("RGB", (9, 6)).save(tmp_path / "image/002.png")
    save_idr_cameras(tmp_path / "cameras_colmap.npz", ring_cameras(3))
    with pytest.raises(InputError, match="differ in size"):
        load_case(tmp_path, tmp_path)
