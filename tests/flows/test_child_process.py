"""The environment that modules in processes of their own get."""

from pathlib import Path

import pytest

from flows.child_process import start_module
from stages.process import EVENT_MARK, event_of


@pytest.mark.parametrize(("own", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_sleep_unless_the_user_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str | None, expected: str
) -> None:
    (tmp_path / "tells.py").write_text("import os; print(os.environ['OMP_WAIT_POLICY'])")
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    process = start_module("tells", tmp_path, {"PYTHONPATH": str(tmp_path)})
    told, _ = process.communicate(timeout=60)
    assert told.strip() == expected


def test_a_garbled_event_is_a_line_like_any_other() -> None:
    assert event_of(EVENT_MARK + '{"kind": "done", "wall_s": 1}') == {"kind": "done", "wall_s": 1}
    for line in ("text", EVENT_MARK, EVENT_MARK + '{"kind": "do', EVENT_MARK + "[1]"):
        assert event_of(line) is None
