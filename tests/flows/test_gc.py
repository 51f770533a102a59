"""`porf gc` shows first, deletes on demand, and leaves a run that needs nothing anew."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from flows.case_folder import CaseFolder, RunRecord
from flows.cli.gc import parse_age, parse_size, size_text
from pipeline.errors import InputError
from stages.registry import STAGES
from tests.flows.harness import refuse
from tests.flows.test_plan import ahead, fill


@pytest.fixture
def used(tmp_path: Path) -> tuple[CaseFolder, Path]:
    """A folder whose current results stand beside those of other options."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (photos / name).write_text(name)
    folder = CaseFolder(tmp_path / "out")
    folder.create()
    fill(folder, photos, mesh__resolution="64")
    fill(folder, photos)
    keys = {name: p.manifest.key for name, p in ahead(folder, photos).items() if p.manifest}
    folder.save_record(
        RunRecord(photos=str(photos), external={}, preset="fast", settings={}, keys=keys)
    )
    return folder, photos


def test_it_shows_first_and_deletes_on_demand(used: tuple[CaseFolder, Path]) -> None:
    folder, photos = used
    shown = refuse("gc", folder.root)
    assert shown.code == 0
    assert "would be freed" in shown.text
    stale = ahead(folder, photos, "mesh.resolution=64")["mesh"].manifest
    assert stale
    assert stale.key[:8] in shown.text
    assert "freed" in refuse("gc", folder.root, "--yes").text
    assert not folder.store.artifact("mesh", stale.key).exists()
    assert all(p.manifest for p in ahead(folder, photos).values())
    assert "nothing to free" in refuse("gc", folder.root).text


def test_what_fits_into_a_size_is_kept(used: tuple[CaseFolder, Path]) -> None:
    folder, _ = used
    assert "nothing to free" in refuse("gc", folder.root, "--keep", "1GB").text
    assert "would be freed" in refuse("gc", folder.root, "--keep", "1").text
    refused = refuse("gc", folder.root, "--keep", "some")
    assert refused.code == 2
    assert "--keep some: expected a size" in refused.text


def test_a_batch_is_collected_case_by_case(used: tuple[CaseFolder, Path], tmp_path: Path) -> None:
    folder, _ = used
    (tmp_path / "batch.json").write_text(json.dumps({"source": "x"}))
    shown = refuse("gc", tmp_path)
    assert folder.root.name in shown.text
    assert "mesh" in shown.text
    assert "nothing to free" in refuse("gc", tmp_path, "--older-than", "1d").text


def test_a_damaged_record_forbids_deleting(used: tuple[CaseFolder, Path]) -> None:
    folder, _ = used
    (folder.hidden / "run.json").write_text("{")
    refused = refuse("gc", folder.root, "--yes")
    assert refused.code == 2
    assert "damaged" in refused.text
    assert len(list((folder.hidden / "store").iterdir())) == len(STAGES)


def test_ages_and_sizes() -> None:
    assert parse_age("12h") == timedelta(hours=12)
    assert parse_age("1.5d") == timedelta(hours=36)
    assert parse_size("20GB") == 20_000_000_000
    assert parse_size("500 mb") == 500_000_000
    assert size_text(1_530_000) == "1.53 MB"
    for bad in ("", "5", "-3d", "3y", "nan"):
        with pytest.raises(InputError):
            parse_age(bad)
    for bad in ("", "-1GB", "many"):
        with pytest.raises(InputError):
            parse_size(bad)
