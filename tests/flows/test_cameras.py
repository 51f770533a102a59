"""Cameras on a round trip through the command line: out of one run and into another."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.formats.idr import load_idr_cameras
from tests.flows.harness import SMALL, Porf


@pytest.mark.slow
def test_exported_cameras_start_another_run(
    porf: Porf, photos_and_truth: Path, tmp_path: Path
) -> None:
    photos, first, second = photos_and_truth / "photos", tmp_path / "a", tmp_path / "b"
    small = ["--config", SMALL, "--to", "scene"]
    assert porf("run", photos, "-o", first, *small).code == 0
    exported = porf("export-cameras", first, "--views", "photos", "-o", tmp_path / "cameras")
    assert exported.code == 0, exported.text
    shown = porf("roi", first)
    assert shown.code == 0, shown.text
    assert (first / "roi.png").is_file()
    given = ["--cameras", tmp_path / "cameras", "--roi", "0,0,0,50"]
    again = porf("run", photos, "-o", second, *given, *small)
    assert again.code == 0, again.text
    before = load_idr_cameras(first / "cameras_colmap.npz")
    after = load_idr_cameras(second / "cameras_colmap.npz")
    np.testing.assert_allclose(after.c2w, before.c2w, atol=1e-6)
    assert after.radius == 50
    assert "cached" in porf("run", photos, "-o", second, *given, *small).text
