"""`porf evaluate` and `porf compare` as a user calls them."""

import json
import re
import subprocess
import sys

import pytest
import trimesh
from typer.main import get_command

from flows.cli.app import app
from pipeline.metrics.clouds import LET_CAMERAS_ALIGN


def _porf(*words):
    command = [sys.executable, "-m", "flows.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    true = trimesh.creation.icosphere(subdivisions=3)
    true.export(folder / "true.ply")
    trimesh.creation.icosphere(subdivisions=3, radius=1.02).export(folder / "mesh.ply")
    trimesh.creation.icosphere(subdivisions=3, radius=1000).export(folder / "mm.ply")
    return folder


def test_measure_then_compare(meshes):
    words = [meshes / "mesh.ply", "--protocol", "mesh", "--ground-truth", meshes / "true.ply"]
    done = _porf("evaluate", *words, "--unit", "m", "-o", meshes / "a.json")
    assert done.returncode == 0, done.stderr
    assert "chamfer_of_radius" in done.stdout and "alignment: none" in done.stdout
    result = json.loads((meshes / "a.json").read_text())
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert values["chamfer_of_radius"] == pytest.approx(2, abs=0.1)
    assert result["alignment"]["matrix"][0] == [1, 0, 0, 0]
    done = _porf("compare", meshes / "a.json", "published:dtu65", "--format", "markdown")
    assert done.returncode == 0, done.stderr
    assert "| PoRF, DTU scan 65 (published) |" in done.stdout


def test_wrong_units_end_with_exit_code_2_and_no_number(meshes):
    words = [meshes / "mm.ply", "--protocol", "mesh", "--ground-truth", meshes / "true.ply"]
    done = _porf("evaluate", *words, "-o", meshes / "no.json")
    assert done.returncode == 2
    assert "factor of about 1000" in done.stderr and "Traceback" not in done.stderr
    assert done.stdout == "" and not (meshes / "no.json").exists()


def test_advice_names_options_that_exist():
    command = get_command(app).commands["evaluate"]
    options = {name for parameter in command.params for name in parameter.opts}
    named = set(re.findall(r"--[a-z-]+", LET_CAMERAS_ALIGN))
    assert named and named <= options
