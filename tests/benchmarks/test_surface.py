"""What `benchmarks/surface.py` says of its rows; the rows themselves take hours."""

from pathlib import Path

import numpy as np

from benchmarks.surface import CAMERAS, PhotoSet, row_key, table
from benchmarks.tables import markdown, put
from flows.settings import resolve

ROW = {
    "views": 21,
    "photos": 24,
    "rotation_deg": 0.0503,
    "chamfer": 1.2345,
    "accuracy": 1.1,
    "completeness": 1.4,
    "f_score": 61.2,
    "silhouette_iou": None,
}


def test_rows_without_and_with_masks_share_a_line():
    masked = {**ROW, "chamfer": 0.9, "f_score": 75.0, "silhouette_iou": 97.25}
    rows = {("render_bowl", "sfm", False): ROW, ("render_bowl", "sfm", True): masked}
    lines = table(rows).splitlines()
    assert lines[2].split(" | ") == [
        "| `render_bowl`", "sfm", "21 of 24", "0.050°", "1.23%", "1.10%", "1.40%", "0.61",
        "0.90%", "0.75", "0.973 |",
    ]  # fmt: skip
    assert any("OpenMVS" in line and "2.01%" in line for line in lines)
    assert len({line.count("|") for line in lines}) == 1


def test_what_is_not_known_is_a_dash():
    rows = {("dtu65", "joint", True): {**ROW, "chamfer": None, "silhouette_iou": 97.0}}
    (line,) = table(rows).splitlines()[2:]
    assert "–" in line and "0.970" in line


def test_a_row_of_other_options_is_another_row():
    keys = {row_key("a", "sfm", masked, o) for masked in (True, False) for o in ([], ["train.x=1"])}
    assert len(keys) == 4
    assert row_key("a", "sfm", False, ["b=1", "a=2"]) == row_key("a", "sfm", False, ["a=2", "b=1"])


def test_every_choice_of_cameras_is_made_of_valid_options():
    models = {name: resolve(overrides=options).train.pose for name, options in CAMERAS.items()}
    assert {name for name, pose in models.items() if pose.model == "fixed"} == {
        "plain", "sfm", "true",
    }  # fmt: skip
    assert models["matches"].joint_start == 1 > models["joint"].joint_start


def test_parts_of_a_set_are_found(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "truth").mkdir()
    np.savez(tmp_path / "truth/cameras.npz", x=0)
    found = PhotoSet.open(tmp_path)
    assert found.photos == tmp_path / "photos" and found.masks is None
    assert found.truth == {"ground_truth": tmp_path / "truth/cameras.npz"}
    assert PhotoSet.open(tmp_path / "photos").photos == tmp_path / "photos"


def test_a_table_takes_its_own_place_again(tmp_path: Path):
    document = tmp_path / "results.md"
    document.write_text("# Results\n\nmine\n")
    for value in ("1", "2"):
        put(document, "a", markdown([["x"], [value]]))
        put(document, "b", "other")
    text = document.read_text()
    assert text.startswith("# Results\n\nmine\n") and "| 2 |" in text and "| 1 |" not in text
    assert text.count("<!-- a -->") == text.count("<!-- end of b -->") == 1
