"""What would run and why, on a store filled by hand."""

from pathlib import Path

import pytest

from flows.case_folder import CaseFolder, RunRecord, StageState, check_owner
from flows.plan import Choice, Prospect, external_files, file_changes, look_ahead, make_recipe
from flows.settings import resolve
from pipeline.errors import InputError
from pipeline.store.digest import HashCache
from pipeline.store.manifest import Manifest
from stages.registry import STAGES


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_text(name)
    return folder


def fill(folder: CaseFolder, photos: Path, **overrides: str) -> None:
    """Publish an artifact of every stage, made of its own key."""
    settings = resolve("fast", None, [f"{k.replace('__', '.')}={v}" for k, v in overrides.items()])
    external = external_files({"photos": photos}, HashCache(folder.hidden / "h.json"))
    contents: dict[str, str] = {}
    for name, stage in STAGES.items():
        recipe = make_recipe(stage, settings, contents, external)
        with folder.store.building(name, recipe.key) as built:
            (built / "file").write_text(recipe.key)
            manifest = Manifest(recipe=recipe, key=recipe.key, files={}, finished_at="2026")
            contents[name] = folder.store.publish(built, manifest).content
        folder.save_state(name, StageState(status="done", key=recipe.key))


def ahead(
    folder: CaseFolder, photos: Path, *overrides: str, choice: Choice | None = None
) -> dict[str, Prospect]:
    external = external_files({"photos": photos}, HashCache(folder.hidden / "h.json"))
    settings = resolve("fast", None, overrides)
    return {p.stage: p for p in look_ahead(folder, settings, external, choice or Choice.of())}


@pytest.fixture
def filled(tmp_path: Path, photos: Path) -> CaseFolder:
    folder = CaseFolder(tmp_path / "out")
    folder.create()
    fill(folder, photos)
    return folder


def test_nothing_runs_twice(filled: CaseFolder, photos: Path) -> None:
    assert all(p.manifest and not p.reasons for p in ahead(filled, photos).values())


def test_an_option_reruns_its_stage_and_names_itself(filled: CaseFolder, photos: Path) -> None:
    prospects = ahead(filled, photos, "mesh.resolution=80")
    assert [n for n, p in prospects.items() if p.manifest] == [
        "ingest",
        "sfm",
        "scene",
        "matches",
        "train",
    ]
    assert prospects["mesh"].reasons == [f"mesh.resolution {resolve().mesh.resolution} → 80"]
    assert "runs if the result of mesh changes" in prospects["evaluate"].reasons[0]


def test_a_runtime_option_reruns_nothing(filled: CaseFolder, photos: Path) -> None:
    assert ahead(filled, photos, "train.device=cpu")["train"].manifest


def test_changed_photos_are_named(filled: CaseFolder, photos: Path) -> None:
    (photos / "a.jpg").write_text("changed")
    (photos / "b.jpg").unlink()
    (photos / "d.jpg").write_text("d")
    assert ahead(filled, photos)["ingest"].reasons == [
        "photos: d.jpg added",
        "photos: b.jpg removed",
        "photos: a.jpg changed",
    ]


def test_a_new_code_version_is_named(
    filled: CaseFolder, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace  # noqa: PLC0415

    stage = STAGES["mesh"]
    monkeypatch.setitem(STAGES, "mesh", replace(stage, version=stage.version + 1))
    reasons = ahead(filled, photos)["mesh"].reasons
    assert reasons == [f"code version {stage.version} → {stage.version + 1}"]


def test_a_deleted_output_is_the_reason(filled: CaseFolder, photos: Path) -> None:
    manifest = ahead(filled, photos)["train"].manifest
    assert manifest
    (filled.store.artifact("train", manifest.key) / "file").unlink()
    assert ahead(filled, photos)["train"].reasons == ["file was deleted"]


def test_choices_follow_the_graph(filled: CaseFolder, photos: Path) -> None:
    assert Choice.of(stop="matches").wanted == ("ingest", "sfm", "scene", "matches")
    assert Choice.of(start="mesh").forced == {"mesh", "evaluate", "report"}
    assert Choice.of(stop="mesh", force=["sfm", "report"]).forced == {"sfm"}
    forced = ahead(filled, photos, choice=Choice.of(force=["train"]))
    assert forced["train"].reasons == ["forced"]
    with pytest.raises(InputError, match="did you mean 'train'"):
        Choice.of(start="trian")


def test_files_that_come_and_go() -> None:
    assert file_changes("ground_truth", None, {"a": "1"}) == ["ground truth added"]
    assert file_changes("ground_truth", {"a": "1"}, None) == ["ground truth no longer given"]
    assert file_changes("masks", {"a": "1"}, {"a": "1"}) == []


def test_an_output_folder_belongs_to_its_photos(tmp_path: Path, photos: Path) -> None:
    folder = CaseFolder(tmp_path / "out")
    folder.create()
    record = RunRecord(
        photos=str(photos),
        external={"photos": str(photos)},
        preset="fast",
        settings={},
        photo_files={"a.jpg": "1", "b.jpg": "2"},
    )
    folder.save_record(record)
    check_owner(folder, photos, {"z.jpg": "9"})  # the same folder may change
    check_owner(folder, tmp_path / "moved", {"renamed.jpg": "1"})  # the same photos may move
    with pytest.raises(InputError, match="belongs to other photos"):
        check_owner(folder, tmp_path / "others", {"z.jpg": "9"})


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="not of this program"):
        CaseFolder(tmp_path).create()
    with pytest.raises(InputError, match="is a file"):
        CaseFolder(tmp_path / "thesis.tex").create()
    with pytest.raises(InputError, match="no run was started"):
        CaseFolder(tmp_path).load_record()


def test_results_at_the_top_are_those_of_the_artifacts(filled: CaseFolder, photos: Path) -> None:
    prospects = ahead(filled, photos)
    mesh = prospects["mesh"].manifest
    assert mesh
    artifact = filled.store.artifact("mesh", mesh.key)
    (artifact / "mesh.ply").write_text("ply")
    assert filled.publish_results({"mesh": mesh}) == []
    assert (filled.root / "mesh.ply").read_text() == "ply"
    assert filled.publish_results({}) == ["mesh.ply"]
    assert not (filled.root / "mesh.ply").exists()
