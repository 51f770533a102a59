"""Cases made by others: what they may hold, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.formats.case import load_case, sorted_images
from pipeline.formats.case_files import case_files
from pipeline.formats.idr import load_idr_cameras
from pipeline.formats.matches import match_file_name
from pipeline.formats.views import load_views
from pipeline.imaging.case_import import ImportedScene, import_matches, import_scene
from pipeline.progress import NullProgress
from tests.porf.tiny_case import HEIGHT, VIEWS, WIDTH, write_tiny_case


@pytest.fixture
def case(tmp_path: Path) -> Path:
    write_tiny_case(tmp_path / "case")
    return tmp_path / "case"


def imported(case: Path, out: Path, cameras: str = "auto") -> ImportedScene:
    out.mkdir(exist_ok=True)
    return import_scene(case, cameras, out, NullProgress())


def rewrite(case: Path, index: int, pixels: Any) -> None:
    assert cv2.imwrite(str(case / "image" / f"{index:03d}.png"), pixels)


def photo(case: Path, index: int) -> Any:
    return cv2.imread(str(case / "image" / f"{index:03d}.png"))


def world_mats(case: Path) -> dict[str, Any]:
    with np.load(case / "cameras_colmap.npz") as stored:
        return dict(stored)


def test_a_case_arrives_unchanged(case: Path, tmp_path: Path) -> None:
    scene = imported(case, tmp_path / "out")
    import_matches(case, VIEWS, tmp_path / "out")
    assert scene.warnings == []
    before, after = load_case(case, case), load_case(tmp_path / "out", tmp_path / "out")
    np.testing.assert_array_equal(after.load_images(), before.load_images())
    np.testing.assert_allclose(after.cameras.c2w, before.cameras.c2w, atol=1e-12)
    np.testing.assert_allclose(after.cameras.K, before.cameras.K, atol=1e-9)
    for ours, theirs in zip(after.matches, before.matches, strict=True):
        assert ours.sources == theirs.sources
        for a, b in zip(ours.matches_px, theirs.matches_px, strict=True):
            np.testing.assert_array_equal(a, b)
    assert scene.report["radius"] == pytest.approx(before.cameras.radius)
    names = [view.name for view in load_views(tmp_path / "out" / "views.json")]
    assert names == [path.name for path in sorted_images(case / "image")]


def test_object_arrays_as_the_original_writes_them(case: Path, tmp_path: Path) -> None:
    """Written with numpy's own pickling, float64, and nothing held out."""
    expected = load_case(case, case).matches
    for index, view in enumerate(expected):
        match = np.empty(len(view.sources), dtype=object)
        for i, rows in enumerate(view.matches_px):
            match[i] = rows.astype(np.float64)
        path = case / "colmap_matches" / match_file_name(index)
        np.savez(path, src_idx=np.array(view.sources), match=match)
    result = import_matches(case, VIEWS, tmp_path)
    assert result.figures["matches"] == sum(len(m) for v in expected for m in v.matches_px)
    assert result.figures["heldout"] == 0


def test_matches_that_would_execute_code_are_refused(case: Path, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "executed",))

    match = np.empty(1, dtype=object)
    match[0] = Harmful()
    np.savez(case / "colmap_matches" / "000000.npz", src_idx=np.array([1]), match=match)
    with pytest.raises(InputError, match="only arrays"):
        import_matches(case, VIEWS, tmp_path)
    assert not (tmp_path / "executed").exists()


def test_cameras_of_a_phone_and_cameras_by_name(case: Path, tmp_path: Path) -> None:
    (case / "cameras_colmap.npz").rename(case / "cameras_arkit.npz")
    assert imported(case, tmp_path / "a").report["cameras_from"] == "cameras_arkit.npz"
    shutil.copy(case / "cameras_arkit.npz", case / "cameras_mine.npz")
    named = imported(case, tmp_path / "b", "cameras_mine.npz")
    assert named.report["cameras_from"] == "cameras_mine.npz"
    with pytest.raises(InputError, match=r"no cameras_colmap.npz: there is cameras_arkit.npz"):
        imported(case, tmp_path / "c", "cameras_colmap.npz")


def test_truth_is_no_file_of_the_training(case: Path) -> None:
    shutil.copy(case / "cameras_colmap.npz", case / "cameras.npz")
    assert "cameras.npz" not in [path.name for path in case_files(case)]
    (case / "cameras_colmap.npz").unlink()
    with pytest.raises(InputError, match=r"there is cameras.npz"):
        imported(case, case / "out")


@pytest.mark.parametrize("kind", ["grey", "grey16", "rgb16", "rgba"])
def test_images_of_every_depth_become_rgb(case: Path, tmp_path: Path, kind: str) -> None:
    pixels = photo(case, 0)
    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    stored = {
        "grey": grey,
        "grey16": grey.astype(np.uint16) * 257,
        "rgb16": pixels.astype(np.uint16) * 257,
        "rgba": np.dstack([pixels, np.full_like(grey, 255)]),
    }[kind]
    rewrite(case, 0, stored)
    scene = imported(case, tmp_path / "out")
    expected = np.repeat(grey[..., None], 3, axis=2) if "grey" in kind else pixels[..., ::-1]
    result = Image.open(tmp_path / "out" / "image" / "000.png")
    assert result.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(result), expected)
    assert scene.warnings == []
    direct = load_case(case, case).load_images()[0]
    np.testing.assert_array_equal(direct, expected)


def test_transparency_is_the_mask_where_all_images_have_it(case: Path, tmp_path: Path) -> None:
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[10:20, 5:30] = 255
    for index in range(VIEWS):
        rewrite(case, index, np.dstack([photo(case, index), alpha]))
    imported(case, tmp_path / "out")
    masks = load_case(tmp_path / "out", case).load_masks()
    assert masks is not None
    np.testing.assert_array_equal(masks[3], alpha > 0)
    rewrite(case, 0, photo(case, 0))
    scene = imported(case, tmp_path / "some")
    assert "transparency is no mask" in scene.warnings[0]
    assert not (tmp_path / "some" / "mask").exists()


def test_masks_and_jpeg_images_in_a_folder_named_rgb(tmp_path: Path) -> None:
    write_tiny_case(tmp_path / "case", masks=True)
    case = tmp_path / "case"
    (case / "rgb").mkdir()
    for path in sorted_images(case / "image"):
        Image.open(path).save(case / "rgb" / f"{path.stem}.jpg", quality=95)
    shutil.rmtree(case / "image")
    imported(case, tmp_path / "out")
    loaded = load_case(tmp_path / "out", case)
    assert (loaded.width, loaded.height) == (WIDTH, HEIGHT)
    assert loaded.load_masks() is not None
    assert {path.suffix for path in loaded.image_paths} == {".png"}


def test_more_cameras_than_images(case: Path, tmp_path: Path) -> None:
    (case / "image" / f"{VIEWS - 1:03d}.png").unlink()
    scene = imported(case, tmp_path / "out")
    assert f"the first {VIEWS - 1} are used" in scene.warnings[0]
    assert len(load_idr_cameras(tmp_path / "out" / "cameras_colmap.npz")) == VIEWS - 1


def test_a_camera_inside_the_region_and_one_that_looks_away(case: Path, tmp_path: Path) -> None:
    mats = world_mats(case)
    KR = mats["world_mat_2"][:3, :3]
    mats["world_mat_2"][:3, 3] = -KR @ mats["scale_mat_0"][:3, 3]
    mats["world_mat_5"] = mats["world_mat_5"] @ turned_round(mats["world_mat_5"])
    np.savez(case / "cameras_colmap.npz", **mats)
    warnings = imported(case, tmp_path / "out").warnings
    assert "1 of 8 cameras stand inside" in warnings[0] and "002.png" in warnings[0]
    assert "behind the cameras of 005.png" in warnings[1]


def turned_round(world_mat: Any) -> Any:
    """A world motion that mirrors the camera's sight through its centre (half a turn)."""
    centre = -np.linalg.solve(world_mat[:3, :3], world_mat[:3, 3])
    turn = np.eye(4)
    turn[:3, :3] = np.diag([-1.0, -1.0, 1.0])
    turn[:3, 3] = centre - turn[:3, :3] @ centre
    return turn


def break_it(case: Path, how: str) -> None:
    if how == "two sizes":
        rewrite(case, 3, photo(case, 3)[:30])
    elif how == "no image":
        (case / "image" / "003.png").write_bytes(b"no image")
    elif how == "huge":
        Image.new("1", (30_000, 30_000)).save(case / "image" / "003.png")
    elif how == "few cameras":
        mats = {name: mat for name, mat in world_mats(case).items() if not name.endswith("_7")}
        np.savez(case / "cameras_colmap.npz", **mats)
    elif how == "turned scale":
        mats = world_mats(case)
        turn = cv2.Rodrigues(np.array([0.0, 0.0, 0.5]))[0]
        for index in range(VIEWS):
            mats[f"scale_mat_{index}"][:3, :3] = turn @ mats[f"scale_mat_{index}"][:3, :3]
        np.savez(case / "cameras_colmap.npz", **mats)
    elif how == "masks":
        (case / "mask").mkdir()
        Image.new("L", (WIDTH, HEIGHT)).save(case / "mask" / "000.png")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("two sizes", "differ in size"),
        ("no image", "003.png cannot be used"),
        ("huge", "too many pixels"),
        ("few cameras", "7 cameras for 8 images"),
        ("turned scale", "scale_mat_0"),
        ("masks", "8 images but 1 masks"),
    ],
)
def test_what_cannot_be_used_is_named(case: Path, tmp_path: Path, how: str, said: str) -> None:
    break_it(case, how)
    with pytest.raises(InputError, match=said):
        imported(case, tmp_path / "out")


def test_matches_that_do_not_fit_are_named(case: Path, tmp_path: Path) -> None:
    folder = case / "colmap_matches"
    shutil.copy(folder / "000000.npz", folder / "000017.npz")
    with pytest.raises(InputError, match=r"000017.npz, which is of no view"):
        import_matches(case, VIEWS, tmp_path)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="no match files"):
        import_matches(case, VIEWS, tmp_path)


def test_views_without_matches_are_told(case: Path, tmp_path: Path) -> None:
    nothing = np.empty(0, dtype=object)
    for index in range(VIEWS):
        path = case / "colmap_matches" / match_file_name(index)
        view = load_case(case, case).matches[index]
        keep = [i for i, source in enumerate(view.sources) if source != 4 and index != 4]
        match = np.empty(len(keep), dtype=object)
        for position, i in enumerate(keep):
            match[position] = view.matches_px[i]
        sources = np.array([view.sources[i] for i in keep], dtype=np.int64)
        np.savez(path, src_idx=sources, match=match if keep else nothing)
    result = import_matches(case, VIEWS, tmp_path)
    assert result.figures["views_without_matches"] == [4]
    assert "no matches for these views: 4" in result.warnings[0]
    json.dumps(result.figures)
