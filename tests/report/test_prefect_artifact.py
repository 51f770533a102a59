"""What Prefect's pages get to show of a finished run."""

from types import SimpleNamespace

from flows import prefect_sink
from pipeline.store.manifest import Manifest
from tests.report.artifacts import manifests


def test_report_and_measures_are_sent(folders, report, monkeypatch):
    sent = {}
    for name in ("create_markdown_artifact", "create_table_artifact"):
        monkeypatch.setattr(prefect_sink, name, lambda **given: sent.update({given["key"]: given}))
    where = {**folders, "report": report}
    case = SimpleNamespace(store=SimpleNamespace(artifact=lambda name, key: where[name]))
    prefect_sink.publish_report(case, {name: _manifest(name) for name in (*manifests(), "report")})
    assert set(sent) == {"report", "metrics"}
    text = sent["report"]["markdown"]
    assert text.startswith("# my &lt;photos&gt;") and text.count("data:image/png") == 3
    assert sent["metrics"]["table"][0]["result"] == "0.0731°"


def test_a_server_that_fails_does_not_fail_the_run(folders, monkeypatch):
    def refuse(**_):
        raise ConnectionError("no server")

    monkeypatch.setattr(prefect_sink, "create_markdown_artifact", refuse)
    case = SimpleNamespace(store=SimpleNamespace(artifact=lambda name, key: folders[name]))
    prefect_sink.publish_report(case, {"evaluate": _manifest("evaluate")})


def _manifest(name: str) -> Manifest:
    written = manifests().get(name, manifests()["evaluate"])
    recipe = {**written["recipe"], "inputs": {}, "external": {}}
    times = {"finished_at": written["started_at"]}
    return Manifest(**{**written, **times, "recipe": recipe, "key": name, "files": {}})
