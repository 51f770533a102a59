"""The stage on some of the artifacts of a small run; `tests/report` looks at the whole page."""

import re

from stages.base import StageContext
from stages.registry import STAGES
from tests.report.artifacts import manifests, write_artifacts


def test_page_and_pictures_are_written(tmp_path):
    folders = write_artifacts(tmp_path / "artifacts")
    stage = STAGES["report"]
    inputs = {name: folders[name] for name in ("ingest", "scene", "evaluate")}
    out = tmp_path / "out"
    out.mkdir()
    context = StageContext(
        inputs, {}, stage.config_type(), out, tmp_path / "work", manifests=manifests()
    )
    verdict = stage.run(context)
    html = (out / "report.html").read_text(encoding="utf-8")
    assert re.search(r"<h1>my &lt;photos&gt;</h1>", html)
    assert verdict.figures["size_mb"] < 15
    assert verdict.figures["pictures"] == len(list((out / "pictures").glob("*.png"))) >= 2
    assert set(stage.results) <= {path.name for path in out.iterdir()}
