"""The environment that modules in processes of their own get."""

from pathlib import Path

import pytest

from flows.child_process import start_module


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
