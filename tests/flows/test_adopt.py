"""Runs of a sweep take over what another run of the case has made, and nothing else."""

from pathlib import Path

import pytest

from flows.batch.adopt import adopt
from flows.batch.entries import Choices, read_batch
from flows.case_folder import CaseFolder
from flows.plan import Choice
from flows.request import RunRequest, external_files
from flows.settings import resolve
from tests.flows.test_plan import ahead, fill


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_text(name)
    return folder


def take_over(photos: Path, out: Path, sibling: Path, *overrides: str) -> list[str]:
    settings = resolve("fast", None, overrides).model_dump(mode="json")
    request = RunRequest(photos=photos, out=out, settings=settings)
    folder = CaseFolder(out)
    folder.create()
    external = external_files(request.paths, folder.hashes())
    return adopt(request, folder, Choice.of(), external, [sibling])


def test_stages_with_equal_recipes_are_taken_over(photos: Path, tmp_path: Path) -> None:
    done = CaseFolder(tmp_path / "one")
    done.create()
    fill(done, photos)
    taken = take_over(photos, tmp_path / "two", done.root, "mesh.resolution=64")
    assert taken == ["ingest", "sfm", "scene", "matches", "train"]
    prospects = ahead(CaseFolder(tmp_path / "two"), photos, "mesh.resolution=64")
    assert prospects["train"].manifest
    assert prospects["mesh"].manifest is None
    assert take_over(photos, tmp_path / "three", done.root, "seed=5") == []


def test_a_damaged_artifact_is_not_taken_over(photos: Path, tmp_path: Path) -> None:
    done = CaseFolder(tmp_path / "one")
    done.create()
    fill(done, photos)
    key = ahead(done, photos)["sfm"].manifest
    assert key
    file = done.store.artifact("sfm", key.key) / "file"
    file.write_text(file.read_text()[::-1])  # same size, other bytes
    assert take_over(photos, tmp_path / "two", done.root) == ["ingest"]
    left = list((tmp_path / "two" / ".porf" / "store" / "sfm").iterdir())
    assert left == []


def test_runs_of_a_sweep_know_their_siblings(tmp_path: Path) -> None:
    (tmp_path / "list.yaml").write_text("{cases: [a, b], presets: [fast, dtu_sift_porf]}")
    runs = {r.name: r for r in read_batch(tmp_path / "list.yaml", tmp_path / "out", Choices())}
    assert [f.name for f in runs["a-fast"].siblings] == ["a-dtu_sift_porf"]
    assert [f.name for f in runs["b-dtu_sift_porf"].siblings] == ["b-fast"]
