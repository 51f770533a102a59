"""A case made by somebody else, through the command line, the store and Prefect."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
import yaml

from flows.batch.entries import Choices, read_batch
from flows.case_folder import CaseFolder
from flows.finished import finished_results
from flows.remote.case import Case
from flows.settings import DEFAULT_PRESET, options_over
from pipeline.formats.camera_source import load_cameras
from pipeline.formats.idr import IdrCameras, load_idr_cameras, save_idr_cameras
from pipeline.geometry.pixels import idr_to_colmap_K
from pipeline.geometry.rotations import rotation_angles_deg
from stages.registry import STAGES, route
from tests.flows.harness import Finished, Porf, refuse
from tests.porf.tiny_case import TINY_OPTIONS, write_tiny_case

OPTIONS = {
    "train": TINY_OPTIONS,
    "mesh": {"resolution": 48, "views_needed": 0},
    "evaluate": {"views": 1},
}


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A case with true cameras, phone cameras to refine, and no word on where they came from."""
    folder = tmp_path_factory.mktemp("elsewhere") / "thing"
    tiny = write_tiny_case(folder)
    true = IdrCameras(tiny.case.cameras.K, tiny.true_c2w_world, tiny.case.cameras.scale_mat)
    save_idr_cameras(folder / "cameras.npz", true)
    (folder / "cameras_colmap.npz").rename(folder / "cameras_arkit.npz")
    (folder.parent / "options.yaml").write_text(yaml.safe_dump(OPTIONS))
    return folder


@pytest.fixture(scope="session")
def trained(porf: Porf, case: Path) -> tuple[Path, Finished]:
    out = case.parent / "out"
    return out, porf("train", case, "-o", out, "--config", case.parent / "options.yaml")


def test_the_stages_of_a_case() -> None:
    stages = route({"case"})
    assert list(stages) == ["scene", "matches", "train", "mesh", "evaluate", "report"]
    assert stages["scene"].inputs == stages["matches"].inputs == ()
    assert stages["evaluate"].inputs == ("scene", "matches", "train", "mesh")
    assert {n: s.inputs for n, s in route({"photos"}).items()} == {
        n: s.inputs for n, s in STAGES.items()
    }


def test_train_goes_all_the_way(trained: tuple[Path, Finished]) -> None:
    out, finished = trained
    assert finished.code == 0, finished.text
    keys = CaseFolder(out).load_record().keys
    assert list(keys) == list(route({"case"}))
    for name in ("mesh.ply", "report.html", "refined_pose.txt", "cameras_refine_porf.npz"):
        assert (out / name).is_file()
    found = json.loads((out / "metrics.json").read_text())["metrics"]
    metrics = {metric["name"]: metric["value"] for metric in found}
    assert 0.3 < metrics["rotation_mean_sfm"] < 1.0  # measured against the case's cameras.npz
    assert "thing" in (out / "report.html").read_text()


def test_again_from_the_output_folder_all_is_cached(
    porf: Porf, trained: tuple[Path, Finished]
) -> None:
    out, _ = trained
    again = porf("train", out, "--resume")
    assert again.code == 0, again.text
    assert again.text.count("cached") == 6 or "nothing to do" in again.text
    status = porf("status", out)
    assert "sfm" not in status.text and status.text.count("cached") + status.text.count("done") == 6
    explained = porf("explain", out, "--set", "train.pose.mode=index_only")
    assert "train.pose.mode porf → index_only" in explained.text


def test_workers_and_batches_take_a_case_too(
    case: Path, trained: tuple[Path, Finished], tmp_path: Path
) -> None:
    file = case.parent / "options.yaml"
    options = options_over(DEFAULT_PRESET, file, [])
    submitted = Case(photos=case, out=trained[0], options=options).request()
    assert submitted.paths == {"case": case, "ground_truth": case / "cameras.npz"}
    assert finished_results(submitted) is not None  # as `porf train` left it
    (batched,) = read_batch(case.parent, tmp_path, Choices(config=file))
    assert batched.request
    assert batched.request.paths == submitted.paths
    assert finished_results(batched.request.model_copy(update={"out": trained[0]})) is not None


def test_other_resolution_and_threshold(porf: Porf, trained: tuple[Path, Finished]) -> None:
    out, _ = trained
    before = trimesh.load(out / "mesh.ply").area
    finished = porf("mesh", out, "--resolution", "32", "--threshold", "0.05")
    assert finished.code == 0, finished.text
    assert trimesh.load(out / "mesh.ply").area > before
    refused = refuse("mesh", out, "--set", "train.steps=3")
    assert refused.code == 2 and "stage `mesh` only" in refused.text


@pytest.mark.slow
def test_a_stopped_training_is_meshed_from_its_checkpoint(
    porf: Porf, trained: tuple[Path, Finished], tmp_path: Path
) -> None:
    """`validate_mesh --is_continue` of the original."""
    done, _ = trained
    out = tmp_path / "out"
    shutil.copytree(done, out)
    options = ["--set", "train.steps=100000", "--set", "train.checkpoint_every=5"]
    running = porf.start("train", out, "--to", "train", *options)
    work = CaseFolder(out).hidden / "work" / "train"
    try:
        while not list(work.glob("*/checkpoint.pt")):
            assert running.poll() is None, running.communicate()[0]
    finally:
        running.kill()
        running.communicate()
    finished = porf("mesh", out)
    assert finished.code == 0, finished.text
    assert "of 100000" in finished.text
    (made,) = out.glob("at_step_*")
    assert len(trimesh.load(made / "mesh.ply").faces) > 100
    assert (made / "refined_pose.txt").is_file()
    assert len(np.load(made / "cameras_refine_porf.npz").files) == 16


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "nowhere"], "expected a case"),
        (["train", "."], "no image/ folder"),
        (["mesh", "nowhere"], "nothing was trained"),
    ],
)
def test_what_is_no_case_is_refused_at_once(words: list[str], said: str) -> None:
    finished = refuse(*words)
    assert finished.code == 2 and said in finished.text


def test_presets_name_their_cameras(case: Path, tmp_path: Path) -> None:
    finished = refuse("train", case, "-o", tmp_path / "out", "--preset", "dtu_sift_porf")
    assert finished.code == 2
    assert "no cameras_colmap.npz: there is cameras.npz, cameras_arkit.npz" in finished.text


def test_a_case_has_no_sfm(case: Path, tmp_path: Path) -> None:
    finished = refuse("train", case, "-o", tmp_path / "out", "--to", "sfm")
    assert finished.code == 2 and "no stage 'sfm'" in finished.text


def _as_the_authors_publish(case: Path) -> None:
    """Matches as numpy pickles them: object arrays of float64, nothing held out."""
    for path in (case / "colmap_matches").iterdir():
        with np.load(path, allow_pickle=True) as stored:
            sources, match = stored["src_idx"], stored["match"]
        for i, rows in enumerate(match):
            match[i] = rows.astype(np.float64)
        np.savez(path, src_idx=sources, match=match)


@pytest.mark.parametrize(
    ("preset", "masks", "distortion"),
    [
        ("dtu_sift_porf", True, 0.001),
        pytest.param("mobilebrick_sift_pose", False, 0.0, marks=pytest.mark.slow),
    ],
)
def test_a_published_case_with_a_published_preset(
    porf: Porf, tmp_path: Path, preset: str, masks: bool, distortion: float
) -> None:
    """No truth; train, go on, mesh, and the cameras in four formats in the case's own frame."""
    case, out, cameras = tmp_path / "scan1", tmp_path / "out", tmp_path / "cameras"
    given = write_tiny_case(case, masks=masks).case.cameras
    _as_the_authors_publish(case)
    if preset.startswith("mobilebrick"):
        (case / "cameras_colmap.npz").rename(case / "cameras_arkit.npz")
    train = {"neus": {**TINY_OPTIONS["neus"], "distortion_weight": distortion}}
    train |= {"steps": 6, "rays": 32, "log_every": 3}
    options = {**OPTIONS, "train": train}
    (tmp_path / "options.yaml").write_text(yaml.safe_dump(options))
    words = ["--preset", preset, "--config", tmp_path / "options.yaml"]
    first = porf("train", case, "-o", out, *words, "--to", "train")
    assert first.code == 0, first.text
    again = porf("train", out, "--resume", "--to", "train")
    assert again.code == 0 and again.text.count("cached") == 3, again.text
    meshed = porf("mesh", out)
    assert meshed.code == 0, meshed.text
    assert len(trimesh.load(out / "mesh.ply").faces) > 100
    exported = refuse("export-cameras", out, "-o", cameras)
    assert exported.code == 0, exported.text
    refined = load_idr_cameras(out / "cameras_refine_porf.npz")
    turned = rotation_angles_deg(given.c2w[:, :3, :3], refined.c2w[:, :3, :3])
    assert 1e-3 < turned.max() < 1  # the same frame, other cameras
    rows = np.loadtxt(cameras / "refined_pose.txt").reshape(-1, 4, 4)
    np.testing.assert_allclose(rows, refined.c2w, atol=1e-6)
    for file in ("cameras.npz", "sparse/0", "transforms.json"):
        read = load_cameras(cameras / file).cameras
        np.testing.assert_allclose([c.c2w for c in read], refined.c2w, atol=1e-6)
        np.testing.assert_allclose([c.K for c in read], idr_to_colmap_K(refined.K), atol=1e-6)


def test_cameras_for_other_programs(trained: tuple[Path, Finished], tmp_path: Path) -> None:
    out, _ = trained
    for state in ("refined", "sfm"):
        target = tmp_path / state
        finished = refuse("export-cameras", out, "--state", state, "-o", target)
        assert finished.code == 0, finished.text
        poses = {"sfm": "poses.txt", "refined": "refined_pose.txt"}[state]
        names = {path.name for path in target.iterdir()}
        assert {"sparse", "transforms.json", "cameras.npz", poses} <= names
    rows = np.loadtxt(tmp_path / "refined" / "refined_pose.txt")
    np.testing.assert_allclose(rows, np.loadtxt(out / "refined_pose.txt"), atol=1e-6)
    assert np.abs(rows - np.loadtxt(tmp_path / "sfm" / "poses.txt")).max() > 1e-5
    refused = refuse("export-cameras", out, "--views", "photos", "-o", tmp_path / "photos")
    assert refused.code == 2 and "undistorted views only" in refused.text


def test_a_trained_case_is_exported_by_its_own_name(
    trained: tuple[Path, Finished], case: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `porf mesh CASE` does: with what `porf train CASE` made of it in the present folder."""
    out, _ = trained
    shutil.copytree(out, tmp_path / "porf_out" / case.name)
    words = ("export-cameras", case, "-o", tmp_path / "cameras", "--no-images")
    assert "8 sfm cameras" in refuse(*words).text  # nothing of it is known here
    monkeypatch.chdir(tmp_path)
    exported = refuse(*words)
    assert exported.code == 0, exported.text
    assert "8 refined cameras" in exported.text
    rows = np.loadtxt(tmp_path / "cameras" / "refined_pose.txt")
    np.testing.assert_allclose(rows, np.loadtxt(out / "refined_pose.txt"), atol=1e-6)


def test_a_training_that_diverges_stops_with_its_last_checkpoint(
    porf: Porf, trained: tuple[Path, Finished], tmp_path: Path
) -> None:
    done, _ = trained
    shutil.copytree(done, tmp_path / "out")
    steep = ["--set", "train.grid.network_learning_rate=1e30", "--set", "train.log_every=4"]
    finished = porf("train", tmp_path / "out", "--to", "train", *steep)
    assert finished.code not in (0, None)
    assert "near step" in finished.text and "the last good checkpoint:" in finished.text
    assert "failed" in porf("status", tmp_path / "out").text
