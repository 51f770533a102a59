"""Freeing what no current result uses: superseded artifacts, abandoned work, remains of kills."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.store.files import remove
from pipeline.store.store import MANIFEST, Store

Key = tuple[str, str]
"""Stage and key."""


@dataclass(frozen=True)
class Removable:
    """A folder beneath the store that may go.

    Attributes:
        stage, key: whose it is.
        kind: `artifact`, `work` (checkpoints of a run that never ended) or `remains` (of a kill).
        path: the folder.
        made_at: when it last changed.
        size: bytes.
    """

    stage: str
    key: str
    kind: str
    path: Path
    made_at: datetime
    size: int


def removables(
    store: Store,
    in_use: Collection[Key],
    older_than: timedelta | None = None,
    keep_bytes: int | None = None,
    now: datetime | None = None,
) -> list[Removable]:
    """What may be freed, oldest first; never what is in use or what a living process holds.

    Args:
        in_use: stages and keys of current results.
        older_than: only what has not changed for so long.
        keep_bytes: only as much as brings the whole store down to this size.
        now: for tests.
    """
    now = now or datetime.now(UTC)
    found = sorted(_unused(store, in_use), key=lambda r: (r.made_at, r.key))
    if older_than is not None:
        found = [r for r in found if now - r.made_at >= older_than]
    if keep_bytes is not None:
        found = list(_down_to(found, store_size(store), keep_bytes))
    return found


def free(store: Store, chosen: Iterable[Removable]) -> int:
    """Delete; returns the bytes freed. What a process took hold of meanwhile stays."""
    freed = 0
    for item in chosen:
        if store.is_locked(item.stage, item.key):
            continue
        if item.kind == "artifact":
            (item.path / MANIFEST).unlink(missing_ok=True)  # from here on nobody believes it
        remove(item.path)
        freed += item.size
    return freed


def store_size(store: Store) -> int:
    """Bytes of all artifacts and all work in progress."""
    return sum(folder_size(store.root / part) for part in ("store", "work"))


def folder_size(folder: Path) -> int:
    """Bytes of all files beneath a folder."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except OSError:
            continue  # gone meanwhile
    return total


def _unused(store: Store, in_use: Collection[Key]) -> Iterator[Removable]:
    for part in ("store", "work"):
        for folder in sorted((store.root / part).glob("*/*")):
            stage, name = folder.parent.name, folder.name
            hidden = name.startswith(".")
            key = name.lstrip(".").split(".")[0]
            kind = "remains" if hidden else "artifact" if part == "store" else "work"
            used = (stage, key) in in_use and kind == "artifact"
            if not folder.is_dir() or used or store.is_locked(stage, key):
                continue
            yield Removable(stage, key, kind, folder, _changed_at(folder), folder_size(folder))


def _changed_at(folder: Path) -> datetime:
    """When an artifact was published, or when anything in other folders last changed."""
    stamp = folder / MANIFEST
    looked_at = [stamp] if stamp.is_file() else [folder, *folder.rglob("*")]
    times = []
    for path in looked_at:
        try:
            times.append(path.lstat().st_mtime)
        except OSError:
            continue  # gone meanwhile
    return datetime.fromtimestamp(max(times, default=0.0), UTC)


def _down_to(found: Iterable[Removable], size: int, keep_bytes: int) -> Iterator[Removable]:
    for item in found:
        if size <= keep_bytes:
            return
        size -= item.size
        yield item
