"""The stage on folders as users bring them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import InputError
from tests.stages.photo_run import run_stage


def _picture(seed: int, width: int = 120, height: int = 90) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _folder(root: Path, *names: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        _picture(seed).save(root / name)
    return root


def _ingest(tmp_path: Path, photos: Path, masks: Path | None = None, **options: object) -> dict:
    external = {"photos": photos} | ({"masks": masks} if masks else {})
    verdict = run_stage("ingest", tmp_path / "run", external, options)
    record = json.loads((tmp_path / "run" / "ingest" / "ingest.json").read_text())
    record["verdict"] = verdict
    return record


def test_good_photos_pass_with_their_own_bytes(tmp_path: Path) -> None:
    photos = _folder(tmp_path / "p", "c.png", "a.jpg", "b.jpg")
    record = _ingest(tmp_path, photos)
    assert [p["name"] for p in record["photos"]] == ["a.jpg", "b.jpg", "c.png"]
    assert record["verdict"].status == "ok"
    for photo in record["photos"]:
        stored = tmp_path / "run" / "ingest" / photo["file"]
        assert stored.read_bytes() == (photos / photo["name"]).read_bytes()
        assert (photo["width"], photo["height"], photo["mask"]) == (120, 90, None)


def test_bad_files_among_good_ones_are_named(tmp_path: Path) -> None:
    photos = _folder(tmp_path / "p", "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    whole = (photos / "d.jpg").read_bytes()
    (photos / "d.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "e.jpg").write_bytes(b"")
    (photos / "notes.txt").write_text("on the shelf")
    (photos / ".hidden").write_text("")
    record = _ingest(tmp_path, photos)
    reasons = {p["name"]: p["reason"] for p in record["photos"]}
    assert list(reasons) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg", "notes.txt"]
    assert "truncated" in reasons["d.jpg"]
    assert "empty" in reasons["e.jpg"]
    assert "not an image" in reasons["notes.txt"]
    assert record["verdict"].status == "warn"
    said = " ".join(record["verdict"].reasons)
    assert all(name in said for name in ("d.jpg", "e.jpg", "notes.txt"))
    assert {p.name for p in (tmp_path / "run/ingest/images").iterdir()} == {
        "a.jpg",
        "b.jpg",
        "c.jpg",
    }


def test_too_few_photos_are_refused_with_reasons(tmp_path: Path) -> None:
    photos = _folder(tmp_path / "p", "a.jpg", "b.jpg")
    (photos / "c.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"at least 3, got 2; skipped c\.jpg \(the file is empty"):
        _ingest(tmp_path, photos)


def test_folders_without_photos_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        _ingest(tmp_path / "1", tmp_path / "missing")
    (tmp_path / "p" / "inner").mkdir(parents=True)
    with pytest.raises(InputError) as caught:
        _ingest(tmp_path / "2", tmp_path / "p")
    assert "inner" in (caught.value.hint or "")
    (tmp_path / "file.jpg").write_bytes(b"x")
    with pytest.raises(InputError, match="expected a folder"):
        _ingest(tmp_path / "3", tmp_path / "file.jpg")


def test_exif_that_cannot_be_is_told(tmp_path: Path) -> None:
    photos = _folder(tmp_path / "p", "a.jpg", "b.jpg", "c.jpg")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 65535
    _picture(7).save(photos / "a.jpg", exif=exif)
    _picture(8).save(photos / "b.jpg", exif=b"Exif\x00\x00" + bytes(range(7, 200)))
    record = _ingest(tmp_path, photos)
    assert all(p["used"] and p["focal_px"] is None for p in record["photos"])
    told = " ".join(record["verdict"].reasons)
    assert "no lens has, and counts as absent: a.jpg" in told
    assert "damaged, and counts as absent: b.jpg" in told


def test_large_photos_shrink_with_their_focal_length(tmp_path: Path) -> None:
    photos = tmp_path / "p"
    photos.mkdir()
    for seed, size in enumerate([(600, 400), (600, 400), (400, 600)]):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA405] = 30
        _picture(seed, *size).save(photos / f"{seed}.jpg", exif=exif)
    record = _ingest(tmp_path, photos, max_side_px=300)
    first, _, upright = record["photos"]
    assert (first["width"], first["height"]) == (300, 200)
    assert (upright["width"], upright["height"]) == (200, 300)
    assert first["file"].endswith(".png")
    assert first["focal_px"] == pytest.approx(30 / np.hypot(36, 24) * np.hypot(300, 200))
    assert first["camera"] != upright["camera"]


def test_equal_stems_and_odd_names_get_files_of_their_own(tmp_path: Path) -> None:
    photos = _folder(tmp_path / "p", "IMG 1.jpg", "IMG_1.png", "img_1.JPG", "ü ñ.jpg")
    files = [p["file"] for p in _ingest(tmp_path, photos)["photos"]]
    assert len({file.lower().split(".")[0] for file in files}) == 4
    assert all(" " not in file and file.isascii() for file in files)


def test_a_second_copy_of_a_photo_is_left_out(tmp_path: Path) -> None:
    photos = _folder(tmp_path / "p", "a.jpg", "b.jpg", "c.jpg")
    (photos / "d.jpg").write_bytes((photos / "a.jpg").read_bytes())
    record = _ingest(tmp_path, photos)
    assert record["photos"][3]["reason"] == "the same file as a.jpg"
    assert not record["photos"][3]["used"]
    assert len(list((tmp_path / "run/ingest/images").iterdir())) == 3


def test_photos_that_show_exactly_the_same_are_left_out(tmp_path: Path) -> None:
    """Ten shots from a tripod, each stored anew: one photo, and that is too few."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    scene = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
    for i in range(10):
        scene.save(folder / f"{i}.jpg", quality=90 + i % 5)
    with pytest.raises(InputError, match="shows exactly the same as 0"):
        run_stage("ingest", tmp_path / "a", {"photos": folder})
    for i in range(3):  # a step of one pixel is a step
        scene.crop((i, 0, 600 + i, 480)).save(folder / f"moved{i}.jpg", quality=90)
    verdict = run_stage("ingest", tmp_path / "b", {"photos": folder})
    assert (verdict.figures["photos"], verdict.figures["skipped"]) == (4, 9)


def test_masks_follow_their_photos(tmp_path: Path) -> None:
    photos = _folder(tmp_path / "p", "a.jpg", "b.jpg", "c.jpg")
    masks = tmp_path / "m"
    masks.mkdir()
    for name in ("a.png", "b.png"):
        mask = np.zeros((90, 120), dtype=np.uint8)
        mask[:45] = 255
        Image.fromarray(mask).save(masks / name)
    record = _ingest(tmp_path, photos, masks)
    assert [p["mask"] for p in record["photos"]] == ["masks/a.png", "masks/b.png", None]
    assert any("c.jpg" in reason for reason in record["verdict"].reasons)
    stored = np.asarray(Image.open(tmp_path / "run/ingest/masks/a.png"))
    assert stored[:45].min() == 255
    assert stored[45:].max() == 0


def test_transparency_becomes_the_mask(tmp_path: Path) -> None:
    photos = _folder(tmp_path / "p", "a.jpg", "b.jpg")
    rgba = np.asarray(_picture(9).convert("RGBA")).copy()
    rgba[:30, :, 3] = 0
    Image.fromarray(rgba).save(photos / "c.png")
    record = _ingest(tmp_path, photos)
    assert record["photos"][2]["mask"] == "masks/c.png"
    without = _ingest(tmp_path / "again", photos, use_alpha=False)
    assert without["photos"][2]["mask"] is None


def test_phone_photos_come_upright(tmp_path: Path, shared: Path) -> None:
    record = _ingest(tmp_path, shared / "data" / "phone", max_side_px=400)
    assert sum(p["used"] for p in record["photos"]) == 23
    by_name = {p["name"]: p for p in record["photos"]}
    assert by_name["IMG_1027.jpg"]["width"] < by_name["IMG_1027.jpg"]["height"]
    assert by_name["IMG_1025.HEIC"]["focal_px"] is not None
