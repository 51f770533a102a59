"""Masks find their photos by name or number, and a missing mask is missing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from pipeline.imaging.decode import decode_photo
from pipeline.imaging.masks import assign_masks, read_mask, shrink_mask


def _masks(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        Image.new("L", (100, 70)).save(folder / name)
    return folder


def test_masks_are_found_by_stem_or_full_name(tmp_path: Path) -> None:
    folder = _masks(tmp_path / "m", "IMG_1.png", "IMG_2.JPG.png")
    assigned = assign_masks(folder, ["IMG_1.jpg", "IMG_2.JPG", "IMG_3.jpg"])
    assert {name: path.name for name, path in assigned.items()} == {
        "IMG_1.jpg": "IMG_1.png",
        "IMG_2.JPG": "IMG_2.JPG.png",
    }


def test_numbered_masks_follow_the_order_of_names(tmp_path: Path) -> None:
    folder = _masks(tmp_path / "m", "000.png", "001.png", "002.png")
    assigned = assign_masks(folder, ["c.jpg", "a.jpg", "b.jpg"])
    assert [assigned[name].name for name in ["a.jpg", "b.jpg", "c.jpg"]] == [
        "000.png",
        "001.png",
        "002.png",
    ]


def test_numbers_that_do_not_add_up_are_refused(tmp_path: Path) -> None:
    folder = _masks(tmp_path / "m", "000.png", "001.png")
    with pytest.raises(InputError, match="none of the 2 masks"):
        assign_masks(folder, ["a.jpg", "b.jpg", "c.jpg"])


def test_an_ambiguous_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"several photos: a\.jpg, a\.png"):
        assign_masks(_masks(tmp_path / "m", "a.png"), ["a.jpg", "a.png"])


def test_a_folder_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        assign_masks(tmp_path / "missing", ["a.jpg"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no mask images"):
        assign_masks(tmp_path / "empty", ["a.jpg"])


def _photo(path: Path, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (100, 70)).save(path, exif=exif)
    return path


def test_a_mask_of_the_stored_pixels_is_turned_along(tmp_path: Path) -> None:
    photo = decode_photo(_photo(tmp_path / "a.jpg", orientation=6))
    stored = np.zeros((70, 100), dtype=np.uint8)
    stored[:10, :20] = 255
    Image.fromarray(stored).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", photo)
    np.testing.assert_array_equal(mask, np.rot90(stored, -1))


def test_masks_are_binary_and_transparency_is_background(tmp_path: Path) -> None:
    photo = decode_photo(_photo(tmp_path / "a.jpg"))
    rgba = np.zeros((70, 100, 4), dtype=np.uint8)
    rgba[..., :3] = 255
    rgba[10:20, 10:20, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "m.png")
    mask = read_mask(tmp_path / "m.png", photo)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask > 0).sum() == 100
    Image.fromarray(np.full((70, 100), 100, np.uint8)).save(tmp_path / "grey.png")
    assert not read_mask(tmp_path / "grey.png", photo).any()


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    photo = decode_photo(_photo(tmp_path / "a.jpg"))
    Image.new("L", (99, 70)).save(tmp_path / "m.png")
    with pytest.raises(InputError, match="99×70 pixels, its photo 100×70"):
        read_mask(tmp_path / "m.png", photo)
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot read the mask"):
        read_mask(tmp_path / "broken.png", photo)


def test_shrinking_keeps_the_share_of_the_object() -> None:
    mask = np.zeros((300, 400), dtype=np.uint8)
    mask[100:200, 100:300] = 255
    small = shrink_mask(mask, 133, 100)
    assert small.shape == (100, 133)
    assert (small > 0).mean() == pytest.approx((mask > 0).mean(), abs=0.01)
