"""What users go through: reruns, changed options, deleted files, kills, runs at the same time."""

import json
import shutil
import time
from pathlib import Path

import httpx
import numpy as np
import trimesh

from pipeline.formats.case import load_case
from pipeline.formats.idr import load_idr_cameras
from pipeline.formats.poses import load_pose_text
from pipeline.formats.views import load_views
from stages.registry import STAGES
from tests.flows.harness import SMALL, Finished, Porf, SmallCase
from tests.flows.processes import kill, stage_pids

ALL = list(STAGES)


def started_at(case: SmallCase) -> dict[str, str]:
    return {name: f"{m.started_at}/{m.wall_s}" for name, m in case.manifests().items()}


def rerun(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [name for name in ALL if before.get(name) != after.get(name)]


def test_photos_become_a_measured_mesh(first_run: tuple[SmallCase, Finished]) -> None:
    case, finished = first_run
    assert finished.code == 0, finished.text
    views = load_views(case.out / "views.json")
    assert [v.index for v in views] == list(range(10))
    opened = load_case(case.out, case.out)
    refined = load_idr_cameras(case.out / "cameras_refine_porf.npz")
    assert len(opened) == len(refined) == 10
    np.testing.assert_allclose(refined.K, opened.cameras.K, atol=1e-6)
    np.testing.assert_allclose(refined.scale_mat, opened.cameras.scale_mat)
    np.testing.assert_allclose(
        load_pose_text(case.out / "refined_pose.txt"), refined.c2w, atol=1e-5
    )
    mesh = trimesh.load(case.out / "mesh.ply")
    from_centre = np.linalg.norm(mesh.vertices - refined.centre, axis=1)
    assert from_centre.max() <= 1.01 * refined.radius  # one world frame
    assert mesh.visual.vertex_colors.std() > 1  # coloured
    metrics = json.loads((case.out / "metrics.json").read_bytes())["metrics"]
    assert all(m["unit"] is not None and m["meaning"] for m in metrics)
    assert b"<html" in (case.out / "report.html").read_bytes()[:2000].lower()


def test_a_second_run_is_cached_everywhere(porf: Porf, small_case: SmallCase) -> None:
    before = started_at(small_case)
    finished = porf.run(small_case)
    assert finished.code == 0, finished.text
    assert rerun(before, started_at(small_case)) == []
    assert porf.task_states(small_case) == dict.fromkeys(ALL, "Cached")


def test_an_option_of_one_stage_reruns_what_hangs_on_it(porf: Porf, small_case: SmallCase) -> None:
    before = started_at(small_case)
    said = porf("explain", small_case.out, "--set", "mesh.resolution=40").text
    assert "mesh.resolution 48 → 40" in said
    finished = porf.run(small_case, "--set", "mesh.resolution=40")
    assert finished.code == 0, finished.text
    assert rerun(before, started_at(small_case)) == ["mesh", "evaluate", "report"]
    states = porf.task_states(small_case)
    assert [n for n in ALL if states[n] == "Cached"] == [
        "ingest",
        "sfm",
        "scene",
        "matches",
        "train",
    ]
    assert {states[n] for n in ("mesh", "evaluate", "report")} == {"Completed"}


def test_a_deleted_output_is_made_again_and_stops_there(porf: Porf, small_case: SmallCase) -> None:
    before = started_at(small_case)
    folder = small_case.folder
    (folder.store.artifact("mesh", small_case.keys()["mesh"]) / "mesh.ply").unlink()
    (small_case.out / "mesh.ply").unlink()
    assert "stale" in porf("status", small_case.out).text
    assert "mesh.ply was deleted" in porf("explain", small_case.out).text
    finished = porf.run(small_case)
    assert finished.code == 0, finished.text
    assert rerun(before, started_at(small_case)) == ["mesh"]  # equal content stops the cascade
    assert (small_case.out / "mesh.ply").is_file()


def test_a_forced_stage_runs_alone_where_its_result_is_equal(
    porf: Porf, small_case: SmallCase
) -> None:
    before = started_at(small_case)
    finished = porf.run(small_case, "--force", "scene")
    assert finished.code == 0, finished.text
    assert rerun(before, started_at(small_case)) == ["scene"]


def test_from_and_to_bound_what_runs(porf: Porf, small_case: SmallCase) -> None:
    before = started_at(small_case)
    finished = porf.run(small_case, "--from", "evaluate")
    assert finished.code == 0, finished.text
    assert rerun(before, started_at(small_case)) == ["evaluate", "report"]
    shutil.rmtree(small_case.out)
    finished = porf.run(small_case, "--to", "ingest")
    assert finished.code == 0, finished.text
    assert list(small_case.manifests()) == ["ingest"]


def wait_for(folder: Path, pattern: str, seconds: float = 240) -> Path:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = sorted(folder.glob(pattern))
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} in {folder}")


def test_kill_9_in_training_and_the_same_command_resumes(porf: Porf, small_case: SmallCase) -> None:
    slow = ["--set", "train.steps=400", "--set", "train.checkpoint_every=20"]
    process = porf.start("run", small_case.photos, "-o", small_case.out, "--config", SMALL, *slow)
    wait_for(small_case.folder.hidden / "work" / "train", "*/checkpoint.pt")
    process.kill()
    process.wait()
    time.sleep(1)
    assert "interrupted" in porf("status", small_case.out).text
    assert stage_pids(small_case.out) == []
    finished = porf("run", small_case.photos, "-o", small_case.out, "--config", SMALL, *slow)
    assert finished.code == 0, finished.text
    assert "continues where it was interrupted" in finished.text
    assert "training continues at step" in finished.text
    states = porf.task_states(small_case)
    assert [n for n in ALL if states[n] == "Cached"][:4] == ["ingest", "sfm", "scene", "matches"]


def test_a_killed_stage_process_is_retried_in_the_same_run(
    porf: Porf, small_case: SmallCase
) -> None:
    slow = ["--set", "train.steps=400", "--set", "train.checkpoint_every=20"]
    process = porf.start("run", small_case.photos, "-o", small_case.out, "--config", SMALL, *slow)
    wait_for(small_case.folder.hidden / "work" / "train", "*/checkpoint.pt")
    assert kill(stage_pids(small_case.out))
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text
    assert "SIGKILL" in text
    assert "trying again" in text


def test_a_wiped_prefect_home_loses_nothing(
    porf: Porf, small_case: SmallCase, tmp_path: Path
) -> None:
    before = started_at(small_case)
    finished = porf.run(small_case, PORF_HOME=str(tmp_path / "new"), PREFECT_API_URL="")
    assert finished.code == 0, finished.text
    assert rerun(before, started_at(small_case)) == []


def test_two_identical_runs_at_once_compute_once(porf: Porf, small_case: SmallCase) -> None:
    words = ["run", small_case.photos, "-o", small_case.out, "--config", SMALL]
    words += ["--set", "train.steps=41"]
    first, second = porf.start(*words), porf.start(*words)
    texts = [first.communicate(timeout=300)[0], second.communicate(timeout=300)[0]]
    assert (first.returncode, second.returncode) == (0, 0), "\n".join(texts)
    trained = [
        m for m in small_case.folder.store.manifests("train") if m.recipe.options["steps"] == 41
    ]
    assert len(trained) == 1
    assert any("waiting for its result" in text for text in texts)


def test_status_shows_every_stage(porf: Porf, small_case: SmallCase) -> None:
    finished = porf("status", small_case.out, "--verify")
    assert finished.code == 0
    assert all(name in finished.text for name in ALL)
    assert "done" in finished.text


def test_a_damaged_store_file_is_found_and_made_again(porf: Porf, small_case: SmallCase) -> None:
    artifact = small_case.folder.store.artifact("mesh", small_case.keys()["mesh"])
    content = bytearray((artifact / "mesh.ply").read_bytes())
    content[-1] ^= 255
    (artifact / "mesh.ply").write_bytes(content)
    finished = porf.run(small_case, "--verify")
    assert finished.code == 0, finished.text
    assert "SHA-256 differs" in finished.text
    assert small_case.folder.store.find("mesh", small_case.keys()["mesh"], deep=True)[0]


def test_one_stage_by_hand(porf: Porf, small_case: SmallCase, tmp_path: Path) -> None:
    target = tmp_path / "by-hand"
    words = ["stage", "mesh", "--of", small_case.out, "--config", SMALL, "-o", target]
    finished = porf(*words, "--set", "mesh.resolution=32")
    assert finished.code == 0, finished.text
    assert (target / "mesh.ply").is_file()
    refused = porf(*words)
    assert refused.code == 2
    assert "choose a new one" in refused.text


def test_the_ui_shows_the_run_history(porf: Porf, small_case: SmallCase) -> None:
    process = porf.start("ui", "--no-browser", PYTHONUNBUFFERED="1")
    assert process.stdout
    line = process.stdout.readline()
    address = line.split("run history: ")[1].split()[0]
    page = httpx.get(address, follow_redirects=True)
    assert page.status_code == 200
    assert "<html" in page.text.lower()
    runs = porf.ask("flow_runs/filter", {})
    name = small_case.photos.parent.name
    assert any(run["name"] == f"{name} @ fast" for run in runs)
    process.terminate()
    assert process.wait(60) == 0


def test_prefect_keeps_progress_the_report_and_the_metrics(
    porf: Porf, first_run: tuple[SmallCase, Finished]
) -> None:
    case, _ = first_run
    run_id = case.folder.load_record().flow_run_id
    answer = porf.ask("artifacts/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    artifacts = {artifact["key"]: artifact for artifact in answer}
    assert "data:image/png;base64" in artifacts["report"]["data"]
    assert artifacts["metrics"]["type"] == "table"
    assert float(artifacts["train-progress"]["data"]) == 100
