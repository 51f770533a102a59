"""What a batch consists of: folders, lists, sweeps, and names that are refused."""

from pathlib import Path

import pytest

from flows.batch.entries import BatchRun, Choices, read_batch
from pipeline.errors import InputError
from pipeline.text import plain_name, visible


def runs_of(source: Path, **choices: object) -> list[BatchRun]:
    return read_batch(source, source.parent / "out", Choices(**choices))  # type: ignore[arg-type]


def write_list(folder: Path, text: str) -> Path:
    path = folder / "list.yaml"
    path.write_text(text)
    return path


def test_folders_are_cases_with_what_lies_beside_their_photos(tmp_path: Path) -> None:
    root = tmp_path / "cases"
    for name in ("skull/photos", "bowl", ".hidden", "result/.porf"):
        (root / name).mkdir(parents=True)
    (root / "skull" / "cameras.npz").touch()
    (root / "skull" / "masks").mkdir()
    found = {run.name: run for run in runs_of(root)}
    assert sorted(found) == ["bowl", "skull"]
    skull, bowl = found["skull"].request, found["bowl"].request
    assert skull and bowl
    assert skull.photos == root / "skull" / "photos"
    assert sorted(skull.external) == ["ground_truth", "masks"]
    assert (bowl.photos, bowl.external) == (root / "bowl", {})
    assert skull.out == tmp_path / "out" / "skull"


def test_a_list_sweeps_over_presets_and_seeds(tmp_path: Path) -> None:
    path = write_list(
        tmp_path,
        """
        presets: [fast, dtu_sift_porf]
        seeds: [0, 7]
        set: {train.steps: 100, mesh: {resolution: 64}}
        cases:
          - skull
          - {photos: /data/bowl/photos, set: {train.steps: 5}, presets: [fast], seeds: [3]}
        """,
    )
    runs = runs_of(path)
    assert [run.name for run in runs] == [
        "skull-fast-seed0",
        "bowl",
        "skull-fast-seed7",
        "skull-dtu_sift_porf-seed0",
        "skull-dtu_sift_porf-seed7",
    ]
    settings = {run.name: run.request.settings for run in runs if run.request}
    assert settings["skull-fast-seed7"]["seed"] == 7
    assert settings["skull-fast-seed7"]["train"]["steps"] == 100
    assert settings["bowl"]["train"]["steps"] == 5
    assert settings["bowl"]["mesh"]["resolution"] == 64
    assert settings["bowl"]["seed"] == 3
    request = runs[0].request
    assert request
    assert request.photos == tmp_path / "skull"


def test_the_command_line_wins_over_the_list(tmp_path: Path) -> None:
    path = write_list(tmp_path, "{set: {train.steps: 100}, seeds: [1, 2], cases: [a]}")
    (run,) = runs_of(path, seeds=(9,), overrides=("train.steps=3",))
    assert run.request
    assert (run.name, run.seed, run.request.settings["train"]["steps"]) == ("a", 9, 3)


def test_a_case_with_bad_options_is_refused_alone(tmp_path: Path) -> None:
    path = write_list(tmp_path, "{cases: [a, {photos: b, set: {train.setps: 1}}]}")
    good, bad = runs_of(path)
    assert good.request
    assert bad.refusal
    assert "did you mean 'train.steps'" in bad.refusal.message


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("cases: []", "cases"),
        ("cases: [a]\nprsets: [fast]", "did you mean 'presets'"),
        ("cases: [{photos: a, mask: b}]", "did you mean 'masks'"),
        ("cases: [{name: a}]", "photos"),
        ("- a", "list"),
        ("cases: [../outside]", "leads out"),
        ("cases: [{photos: a, masks: x/../../y}]", "leads out"),
        ("cases: [{photos: a, name: ../up}]", "not a path"),
        ("cases: [{photos: a, name: .porf}]", "hidden"),
        ('cases: [{photos: a, name: "a\\e[2J"}]', "\\x1b"),
        ('cases: ["a\\0b"]', "does not print"),
        ("cases: [{photos: a, name: %s}]" % ("x" * 200), "longer"),
        ("cases: [x/a, y/a]", "several cases are named a"),
        ("cases: [*a]", "YAML"),
        ("cases: !!python/object/apply:os.system [true]", "YAML"),
    ],
)
def test_bad_lists_are_refused_in_a_users_words(tmp_path: Path, text: str, word: str) -> None:
    path = write_list(tmp_path, text)
    with pytest.raises(InputError) as refused:
        runs_of(path)
    assert word in refused.value.message


def test_a_folder_with_an_unprintable_name_is_refused_alone(tmp_path: Path) -> None:
    root = tmp_path / "cases"
    (root / "good").mkdir(parents=True)
    (root / "evil\x1b[31m").mkdir()
    by_name = {run.name: run for run in runs_of(root)}
    assert by_name["good"].request
    refusal = by_name["evil\x1b[31m"].refusal
    assert refusal
    assert "\x1b" not in refusal.message


def test_no_cases_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folders"):
        runs_of(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        runs_of(tmp_path / "absent")


def test_names_are_shown_as_they_are_or_written_out() -> None:
    assert visible("Schädel 頭 👍.jpg") == "Schädel 頭 👍.jpg"
    assert visible("a\x1b]0;x\x07\u202egpj.exe\x9b") == "a\\x1b]0;x\\x07\\u202egpj.exe\\x9b"
    assert visible("two\nlines") == "two\nlines"
    assert plain_name("skull-2_a b") == "skull-2_a b"
    for bad in ("", " a", "..", "a/b", "a\\b", ".x", "a\nb", "a\u200fb"):
        with pytest.raises(InputError):
            plain_name(bad)


def test_every_run_stops_after_the_same_stage(tmp_path: Path) -> None:
    (tmp_path / "cases" / "skull").mkdir(parents=True)
    (run,) = runs_of(tmp_path / "cases", stop="sfm")
    assert run.request
    assert run.request.stop == "sfm"
    with pytest.raises(InputError, match="did you mean 'sfm'"):
        runs_of(tmp_path / "cases", stop="sfmm")
