import json

import pytest

from pipeline.errors import InputError
from pipeline.metrics.compare import compare_sources


def _run(folder, **values):
    folder.mkdir(parents=True)
    units = {"rotation_mean_refined": "deg", "translation_mean_refined": "m", "f_score": "%"}
    metrics = [
        {"name": name, "value": value, "unit": units.get(name, "?")}
        for name, value in values.items()
    ]
    (folder / "metrics.json").write_text(json.dumps({"metrics": metrics}))
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    return [
        _run(tmp_path / "one", rotation_mean_refined=0.12, translation_mean_refined=0.002),
        _run(tmp_path / "x/one", rotation_mean_refined=0.2, f_score=None, odd=3.0),
    ]


def test_runs_and_published_figures_share_columns(runs):
    table = compare_sources([*runs, "published:dtu"])
    assert [row.name for row in table.rows][:3] == [
        "one (1)",
        "one (2)",
        "COLMAP, DTU mean (published)",
    ]
    columns = {column.name: column.unit for column in table.columns}
    assert columns == {"rotation_mean": "deg", "translation_mean_mm": "mm", "dtu_overall": "mm"}
    first = table.rows[0].figures
    assert first["rotation_mean"] == 0.12 and first["translation_mean_mm"] == pytest.approx(2.0)
    porf = next(row for row in table.rows if row.name.startswith("PoRF"))
    assert porf.figures == {"rotation_mean": 0.14, "translation_mean_mm": 1.02, "dtu_overall": 0.85}
    assert "second training" in table.notes[0]


def _batch(folder, *runs):
    folder.mkdir()
    figures = [
        {
            "name": name,
            "preset": preset,
            "figures": {n: {"value": v, "unit": u} for n, v, u in found},
        }
        for name, preset, found in runs
    ]
    (folder / "batch.json").write_text(json.dumps({"source": "x", "runs": figures}))
    return str(folder)


def test_a_sweep_is_a_row_a_run_and_a_mean_a_preset(tmp_path):
    batch = _batch(
        tmp_path / "sweep",
        ("a-seed0", "fast", [("rotation_mean_refined", 0.1, "deg"), ("f_score", 90, "%")]),
        ("a-seed1", "fast", [("rotation_mean_refined", 0.3, "deg"), ("f_score", None, "%")]),
        ("b\x1b[2J", "dtu", [("rotation_mean_refined", 0.5, "deg")]),
        ("failed", "fast", []),
    )
    table = compare_sources([batch, "published:dtu"])
    found = {row.name: row.figures for row in table.rows}
    assert list(found)[:4] == ["a-seed0", "a-seed1", "b\\x1b[2J", "mean of fast (2 runs)"]
    # only one of the two has an F-score: no mean
    assert found["mean of fast (2 runs)"] == {"rotation_mean": pytest.approx(0.2)}
    with pytest.raises(InputError, match="no run of"):
        compare_sources([_batch(tmp_path / "early")])
    (tmp_path / "early" / "batch.json").write_text('{"runs": [1]}')
    with pytest.raises(InputError, match="not the record of a batch"):
        compare_sources([str(tmp_path / "early")])


def test_forms(runs):
    table = compare_sources([*runs, "published:mobilebrick"], everything=True)
    assert "odd" in [column.name for column in table.columns]
    lines = table.as_markdown().splitlines()
    assert len(lines) == 2 + 5 and lines[0].startswith("| | rotation error, mean (deg) |")
    assert "| – |" in lines[2]
    assert table.as_csv().splitlines()[1].startswith("one (1),0.12,")
    assert table.as_json()[0]["figures"]["rotation_mean"] == {"value": 0.12, "unit": "deg"}


def test_what_cannot_be_compared(runs, tmp_path):
    with pytest.raises(InputError, match=r"no published figures 'dtv'.*dtu"):
        compare_sources(["published:dtv"])
    with pytest.raises(InputError, match="neither a run"):
        compare_sources([str(tmp_path / "none")])
    (tmp_path / "bad.json").write_text("[]")
    with pytest.raises(InputError, match="not a file of measures"):
        compare_sources([str(tmp_path / "bad.json")])
    other = tmp_path / "other.json"
    metric = {"name": "rotation_mean_given", "value": 1.0, "unit": "rad"}
    other.write_text(json.dumps({"metrics": [metric]}))
    with pytest.raises(InputError, match="cannot share a column"):
        compare_sources([runs[0], str(other)])
