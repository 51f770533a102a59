"""Stores of older and newer programs are read or recomputed, never misread."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.store.store import MANIFEST, Store
from tests.store.test_store import publish, recipe


def rewritten(tmp_path: Path, change: Any) -> tuple[Store, str]:
    """A store whose one manifest was written by another version."""
    store = Store(tmp_path)
    key = publish(store, recipe()).key
    path = store.artifact("mesh", key) / MANIFEST
    plain = json.loads(path.read_bytes())
    change(plain)
    path.write_text(json.dumps(plain))
    return store, key


def test_fields_that_came_later_take_their_defaults(tmp_path: Path) -> None:
    def older(plain: dict[str, Any]) -> None:
        for name in ("libraries", "peak_memory_mb", "paths", "wall_s", "verdict"):
            del plain[name]

    store, key = rewritten(tmp_path, older)
    found, problem = store.find("mesh", key, deep=True)
    assert found
    assert problem == ""
    assert (found.wall_s, found.verdict.status) == (0.0, "ok")


def test_fields_of_a_newer_program_are_left_aside(tmp_path: Path) -> None:
    store, key = rewritten(tmp_path, lambda plain: plain.update(signature="x"))
    assert store.find("mesh", key)[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: plain.pop("recipe"),
        lambda plain: plain.update(files=[]),
        lambda plain: plain.update(files={"sub/mesh.ply": {"size": "large", "sha256": ""}}),
        lambda plain: plain["recipe"].update(version="two"),
    ],
)
def test_a_manifest_that_means_something_else_is_made_anew(tmp_path: Path, change: Any) -> None:
    store, key = rewritten(tmp_path, change)
    found, problem = store.find("mesh", key)
    assert found is None
    assert "cannot be read" in problem


def test_a_file_outside_the_artifact_is_never_looked_at(tmp_path: Path) -> None:
    """A manifest from elsewhere may name any path; none beyond its folder counts as its file."""
    (tmp_path / "secret").write_text("x")
    inside = {"../../../secret": {"size": 1, "sha256": "0"}}
    store, key = rewritten(tmp_path, lambda plain: plain.update(files=inside))
    assert store.find("mesh", key)[0] is None
