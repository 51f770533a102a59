"""The store publishes whole artifacts, notices damage, and lets one process work on a key."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.store.digest import HashCache, digest, fingerprint
from pipeline.store.files import replace_tree, write_text
from pipeline.store.manifest import Manifest, Recipe
from pipeline.store.store import MANIFEST, Store


def recipe(**changes: object) -> Recipe:
    values: dict = {
        "stage": "mesh",
        "version": 1,
        "options": {"resolution": 256},
        "seed": 0,
        "inputs": {"train": "abc"},
        "external": {},
    }
    return Recipe(**{**values, **changes})


def publish(store: Store, made: Recipe, text: str = "solid") -> Manifest:
    with store.lock(made.stage, made.key), store.building(made.stage, made.key) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "mesh.ply").write_text(text)
        return store.publish(folder, Manifest(recipe=made, key=made.key, files={}))


def test_everything_that_identifies_a_result_changes_its_key() -> None:
    keys = [
        recipe().key,
        recipe(version=2).key,
        recipe(options={"resolution": 512}).key,
        recipe(seed=1).key,
        recipe(inputs={"train": "abd"}).key,
        recipe(external={"photos": {"a.jpg": "1"}}).key,
        recipe(stage="train").key,
    ]
    assert len(set(keys)) == len(keys)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_a_published_artifact_is_found_whole(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.find("mesh", recipe().key) == (None, "not made yet")
    published = publish(store, recipe())
    found, problem = store.find("mesh", recipe().key, deep=True)
    assert found == published
    assert problem == ""
    assert found.files["sub/mesh.ply"].size == 5
    siblings = list((tmp_path / "store" / "mesh").iterdir())
    assert [p.name for p in siblings] == [recipe().key]  # no scaffolding stays


def test_equal_content_from_another_recipe_stops_a_cascade(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first, other = publish(store, recipe()), publish(store, recipe(seed=7))
    assert first.key != other.key
    assert first.content == other.content
    assert publish(store, recipe(seed=8), "another").content != first.content


@pytest.mark.parametrize(
    ("damage", "deep", "word"),
    [
        (lambda f: (f / "sub/mesh.ply").unlink(), False, "deleted"),
        (lambda f: (f / "sub/mesh.ply").write_text("longer text"), False, "changed"),
        (lambda f: (f / "sub/mesh.ply").write_text("SOLID"), True, "SHA-256"),
        (lambda f: (f / MANIFEST).write_text("{"), False, "cannot be read"),
        (lambda f: (f / MANIFEST).unlink(), False, "missing"),
    ],
)
def test_damage_is_named(tmp_path: Path, damage: object, deep: bool, word: str) -> None:
    store = Store(tmp_path)
    publish(store, recipe())
    damage(store.artifact("mesh", recipe().key))  # type: ignore[operator]
    found, problem = store.find("mesh", recipe().key, deep=deep)
    assert found is None
    assert word in problem


def test_a_manifest_moved_to_another_key_is_not_believed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    publish(store, recipe())
    store.artifact("mesh", recipe().key).rename(store.artifact("mesh", recipe(seed=1).key))
    assert store.find("mesh", recipe(seed=1).key)[1] == f"{MANIFEST} belongs to another result"


def test_a_failed_build_leaves_nothing_and_publishing_again_replaces(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(RuntimeError), store.building("mesh", "k") as folder:
        (folder / "half").write_text("half")
        raise RuntimeError
    assert not any((tmp_path / "store" / "mesh").iterdir())
    publish(store, recipe(), "old")
    publish(store, recipe(), "new")
    artifact = store.artifact("mesh", recipe().key)
    assert (artifact / "sub" / "mesh.ply").read_text() == "new"


def _hold(root: Path, ready: Path) -> None:
    with Store(root).lock("mesh", "k"):
        ready.touch()
        time.sleep(60)


def test_a_lock_ends_with_its_holder_even_by_kill_9(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(tmp_path, ready))
    holder.start()
    store = Store(tmp_path)
    for _ in range(400):
        if ready.exists():
            break
        time.sleep(0.05)
    assert store.is_locked("mesh", "k")
    assert holder.pid
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert not store.is_locked("mesh", "k")
    waited: list[str] = []
    with store.lock("mesh", "k", on_wait=lambda: waited.append("waited")):
        assert store.is_locked("mesh", "k")
    assert not waited


def test_hashes_are_remembered_until_a_file_changes(tmp_path: Path) -> None:
    photo, remembered = tmp_path / "a.jpg", tmp_path / "cache.json"
    photo.write_bytes(b"one")
    cache = HashCache(remembered)
    first = fingerprint(tmp_path, cache)["a.jpg"]
    cache.save()
    stamp = photo.stat()
    assert HashCache(remembered).sha256(photo) == first
    photo.write_bytes(b"two")  # same size, and the old time as copying tools leave it
    os.utime(photo, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert HashCache(remembered).sha256(photo) != first


def test_hashes_are_remembered_and_not_computed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"one")
    cache = HashCache(tmp_path / ".cache")
    first = fingerprint(tmp_path, cache)
    cache.save()
    monkeypatch.setattr("pipeline.store.digest.sha256_file", lambda _: "computed")
    assert fingerprint(tmp_path, HashCache(tmp_path / ".cache")) == first


def test_a_fingerprint_tells_which_files_count(tmp_path: Path) -> None:
    cache = HashCache(tmp_path / ".cache")
    (tmp_path / "cameras.npz").write_bytes(b"c")
    (tmp_path / "image_names.json").write_bytes(b"n")
    (tmp_path / ".hidden").write_bytes(b"h")
    found = fingerprint(tmp_path / "cameras.npz", cache, ["image_names.json", "absent.json"])
    assert sorted(found) == ["cameras.npz", "image_names.json"]
    assert sorted(fingerprint(tmp_path, cache)) == ["cameras.npz", "image_names.json"]
    with pytest.raises(InputError, match="does not exist"):
        fingerprint(tmp_path / "nothing", cache)


def test_writing_replaces_whole_files_and_trees(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a.txt", "one")
    write_text(tmp_path / "new" / "a.txt", "two")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "gone.txt").touch()
    replace_tree(tmp_path / "new", tmp_path / "old")
    assert [p.name for p in (tmp_path / "old").iterdir()] == ["a.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "old"]
