import re

import pytest

from pipeline.report.markdown import compact_markdown, metric_rows
from tests.report.artifacts import manifests


@pytest.fixture
def with_report(folders, report):
    return {**folders, "report": report}


def test_short_version_says_what_matters(with_report):
    text = compact_markdown(with_report, manifests())
    assert text.startswith("# my &lt;photos&gt;")
    assert "**12 of 14**" in text
    assert "**0.0731°**" in text
    assert "torn.jpg cannot be decoded; see `ingest.json` &lt;b&gt;" in text
    assert "| evaluate | ok | 1 min 28 s |" in text
    assert len(text) < 400_000


def test_pictures_are_embedded(with_report):
    text = compact_markdown(with_report, manifests())
    pictures = re.findall(r"!\[[^\]]+\]\(data:image/png;base64,[A-Za-z0-9+/=]+\)", text)
    assert len(pictures) == 3


def test_without_report_or_ground_truth(folders):
    text = compact_markdown({"scene": folders["scene"]}, {})
    assert "data:image" not in text
    assert "Photos registered" in text


def test_nothing_is_taken_for_markup():
    odd = {"ingest": {"paths": {"photos": "/x/a*b_c|d`e"}}}
    assert compact_markdown({}, odd).splitlines()[0] == "# a\\*b\\_c\\|d\\`e"


def test_metric_rows_are_plain(folders):
    rows = metric_rows(folders)
    assert rows[0]["measure"] == "Rotation error, mean"
    assert rows[0]["before refinement"] == "0.132°"
    assert rows[0]["result"] == "0.0731°"
    assert all(isinstance(value, str) for row in rows for value in row.values())
