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
