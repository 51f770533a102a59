"""Bad input gets a clear answer and exit code 2: no traceback, nothing half-written."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.flows.harness import SMALL, Finished, Porf, refuse


@pytest.fixture
def photos(photos_and_truth: Path, tmp_path: Path) -> Path:
    """A folder of photos of one's own."""
    return Path(shutil.copytree(photos_and_truth / "photos", tmp_path / "photos"))


def refused(finished: Finished, *words: str) -> None:
    assert finished.code == 2, finished.text
    assert "Traceback" not in finished.text
    for word in words:
        assert word in finished.text, finished.text


def test_photos_that_are_not_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused(refuse("run", tmp_path / "absent", "-o", out), "absent", "does not exist")
    (tmp_path / "empty").mkdir()
    refused(refuse("run", tmp_path / "empty", "-o", out), "image")
    (tmp_path / "empty" / "notes.txt").write_text("no photo")
    refused(refuse("run", tmp_path / "empty", "-o", out), "image")
    (tmp_path / "file.jpg").write_bytes(b"x")
    refused(refuse("run", tmp_path / "file.jpg", "-o", out), "folder")
    assert not out.exists()


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_photos(photos: Path, tmp_path: Path, count: int) -> None:
    for extra in sorted(photos.iterdir())[count:]:
        extra.unlink()
    refused(refuse("run", photos, "-o", tmp_path / "out"), "3", str(count))


def test_damaged_photos_among_good_ones_are_named_and_skipped(
    porf: Porf, photos: Path, tmp_path: Path
) -> None:
    first, second, third, *_ = sorted(photos.iterdir())
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:3000])
    third.write_bytes(b"not a photo at all")
    finished = porf("run", photos, "-o", tmp_path / "out", "--to", "ingest")
    assert finished.code == 0, finished.text
    for path in (first, second, third):
        assert path.name in finished.text
    for path in sorted(photos.iterdir())[3:8]:
        path.write_bytes(b"")
    refused(porf("run", photos, "-o", tmp_path / "out", "--to", "ingest"), "2", "3")


def test_photos_that_do_not_overlap(porf: Porf, tmp_path: Path) -> None:
    import cv2  # noqa: PLC0415

    folder = tmp_path / "noise"
    folder.mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 255, (240, 320, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i}.jpg"), cv2.GaussianBlur(noise, (0, 0), 2))
    finished = porf("run", folder, "-o", tmp_path / "out", "--config", SMALL)
    refused(finished, "overlap", "continue with: porf run")
    assert not (tmp_path / "out" / "mesh.ply").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--preset", "fsat"], "did you mean 'fast'"),
        (["--set", "trian.steps=5"], "did you mean 'train'"),
        (["--set", "train.setps=5"], "did you mean 'train.steps'"),
        (["--set", "mesh.resolution=-1"], "mesh.resolution"),
        (["--from", "messh"], "did you mean 'mesh'"),
        (["--force", "nothing"], "unknown stage"),
        (["--config", "absent.yaml"], "absent.yaml"),
        (["--masks", "absent"], "absent"),
        (["--cameras", "absent"], "the cameras"),
        (["--cameras", "/usr"], "no cameras recognised"),
        (["--roi", "1,2,3"], "expected x,y,z,radius"),
    ],
)
def test_unknown_names(
    photos_and_truth: Path, tmp_path: Path, words: list[str], expected: str
) -> None:
    out = tmp_path / "out"
    refused(refuse("run", photos_and_truth / "photos", "-o", out, *words), expected)
    assert not out.exists()


def test_a_ground_truth_that_does_not_match(photos_and_truth: Path, tmp_path: Path) -> None:
    photos = photos_and_truth / "photos"
    wrong = tmp_path / "cameras.npz"
    np.savez(wrong, world_mat_0=np.eye(4), scale_mat_0=np.eye(4))
    run = ["run", photos, "-o", tmp_path / "out"]
    refused(refuse(*run, "--ground-truth", wrong), "1", "10")
    wrong.write_bytes(b"broken")
    refused(refuse(*run, "--ground-truth", wrong), "cameras.npz")
    refused(refuse(*run, "--ground-truth", tmp_path / "absent.npz"), "absent.npz")
    mesh = tmp_path / "mesh.ply"
    mesh.write_bytes(b"not a mesh")
    refused(refuse(*run, "--ground-truth-mesh", mesh), "mesh.ply")


def test_an_output_folder_of_other_photos(porf: Porf, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert porf("run", photos, "-o", out, "--to", "ingest").code == 0
    others = tmp_path / "others"
    others.mkdir()
    for i, path in enumerate(sorted(photos.iterdir())):
        (others / f"{i}.jpg").write_bytes(path.read_bytes() + b"\0")
    refused(refuse("run", others, "-o", out), "belongs to other photos", str(photos))
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    refused(refuse("run", photos, "-o", tmp_path / "thesis"), "not of this program")


def test_an_output_folder_that_cannot_be_written(photos_and_truth: Path) -> None:
    refused(refuse("run", photos_and_truth / "photos", "-o", "/proc/porf-out"), "cannot write")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def test_a_full_disk(porf: Porf, photos_and_truth: Path, small_disk: Path) -> None:
    out = small_disk / "out"
    photos = photos_and_truth / "photos"
    # with little to write, so that the preflight lets it begin
    refused(porf("run", photos, "-o", out, "--config", SMALL), "disk is full")
    assert not (out / "mesh.ply").exists()
    half = [p for p in (out / ".porf" / "store").rglob("*") if p.name.startswith(".")]
    assert half == []


def test_questions_about_a_folder_without_a_run(tmp_path: Path) -> None:
    for command in ("status", "explain"):
        refused(refuse(command, tmp_path), "no run was started")
    refused(refuse("stage", "mesh", "-o", tmp_path / "x"), "--input scene=FOLDER")
    refused(refuse("stage", "mseh", "-o", tmp_path / "x"), "did you mean 'mesh'")
