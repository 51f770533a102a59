"""Garbage: only what is unused, old or too much goes, and never what somebody holds."""

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.store.collect import free, removables, store_size
from pipeline.store.manifest import Manifest
from pipeline.store.store import MANIFEST, Store
from tests.store.test_store import publish, recipe

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def aged(store: Store, made: Manifest, days: int) -> Manifest:
    stamp = (NOW - timedelta(days=days)).timestamp()
    os.utime(store.artifact(made.stage, made.key) / MANIFEST, (stamp, stamp))
    return made


def three(store: Store) -> list[Manifest]:
    """Artifacts of one stage, made 30, 20 and 10 days ago."""
    made = [publish(store, recipe(seed=i), "x" * 1000) for i in range(3)]
    return [aged(store, m, 30 - 10 * i) for i, m in enumerate(made)]


def keys(found: list) -> list[str]:
    return [item.key for item in found]


def test_what_is_used_stays_and_the_rest_goes_oldest_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, used, young = three(store)
    found = removables(store, {("mesh", used.key)}, now=NOW)
    assert keys(found) == [old.key, young.key]
    before = store_size(store)
    freed = free(store, found)
    assert freed == before - store_size(store) > 2000
    assert store.find("mesh", used.key, deep=True)[0] == used
    assert store.find("mesh", old.key)[0] is None


def test_age_and_size_bound_what_goes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, middle, young = three(store)
    assert keys(removables(store, (), older_than=timedelta(days=15), now=NOW)) == [
        old.key,
        middle.key,
    ]
    assert keys(removables(store, (), keep_bytes=store_size(store) - 1, now=NOW)) == [old.key]
    assert removables(store, (), keep_bytes=store_size(store), now=NOW) == []
    assert len(removables(store, (), keep_bytes=0, now=NOW)) == 3
    assert young.key in keys(removables(store, (), keep_bytes=0, now=NOW))


def test_a_held_key_stays_even_if_it_was_free_when_shown(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = publish(store, recipe())
    shown = removables(store, ())
    with store.lock("mesh", made.key):
        assert removables(store, ()) == []
        assert free(store, shown) == 0
    assert store.find("mesh", made.key)[0]


def test_abandoned_work_and_remains_of_kills_are_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    made = publish(store, recipe())
    work = store.work("mesh", made.key)
    work.mkdir(parents=True)
    (work / "checkpoint").write_text("c" * 500)
    shutil.copytree(store.artifact("mesh", made.key), tmp_path / "store/mesh/.abc.1234")
    found = removables(store, {("mesh", made.key)})
    assert {item.kind for item in found} == {"work", "remains"}
    free(store, found)
    assert not work.exists()
    assert [p.name for p in (tmp_path / "store" / "mesh").iterdir()] == [made.key]


def test_a_clock_that_jumped_frees_nothing_too_early(tmp_path: Path) -> None:
    store = Store(tmp_path)
    old, middle, young = three(store)
    aged(store, young, -400)  # published while the clock was a year ahead
    found = removables(store, (), older_than=timedelta(days=15), now=NOW)
    assert keys(found) == [old.key, middle.key]
    back = removables(store, (), older_than=timedelta(days=15), now=NOW - timedelta(days=3650))
    assert back == []
