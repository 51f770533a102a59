"""The store of one output folder: the truth about what has been made.

store/<stage>/<key>/        published artifacts with manifest.json; appear by one rename
work/<stage>/<key>/         checkpoints and the log of work in progress; survives a kill
locks/<stage>-<key>.lock    flock, released by the kernel however the holder ends
"""

import fcntl
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from pipeline.store.digest import sha256_file
from pipeline.store.files import remove, swap, write_text
from pipeline.store.manifest import FileRecord, Manifest

MANIFEST = "manifest.json"
_POLL_S = 0.2


class Store:
    """Artifacts by stage and key beneath `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def artifact(self, stage: str, key: str) -> Path:
        """Folder of a published artifact."""
        return self.root / "store" / stage / key

    def work(self, stage: str, key: str) -> Path:
        """Folder that survives between attempts at one key."""
        return self.root / "work" / stage / key

    def find(self, stage: str, key: str, deep: bool = False) -> tuple[Manifest | None, str]:
        """The manifest of a sound artifact, or None and why there is none.

        Args:
            deep: compare the SHA-256 of every file too, not only presence and size.
        """
        folder = self.artifact(stage, key)
        try:
            manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        except FileNotFoundError:
            return None, "not made yet" if not folder.exists() else f"{MANIFEST} is missing"
        except (ValidationError, OSError):
            return None, f"{MANIFEST} cannot be read"
        if manifest.key != key or manifest.stage != stage:
            return None, f"{MANIFEST} belongs to another result"
        problem = _damage(folder, manifest, deep)
        return (None, problem) if problem else (manifest, "")

    def manifests(self, stage: str) -> list[Manifest]:
        """Readable manifests of a stage, newest first."""
        found = []
        for folder in (self.root / "store" / stage).glob("[!.]*"):
            manifest, _ = self.find(stage, folder.name)
            if manifest:
                found.append(manifest)
        return sorted(found, key=lambda m: m.finished_at, reverse=True)

    def publish(self, built: Path, manifest: Manifest) -> Manifest:
        """Make the finished folder `built` visible under the manifest's key, in one rename."""
        manifest = manifest.model_copy(update={"files": record_files(built)})
        write_text(built / MANIFEST, manifest.model_dump_json(indent=1))
        swap(built, self.artifact(manifest.stage, manifest.key))
        return manifest

    @contextmanager
    def building(self, stage: str, key: str) -> Iterator[Path]:
        """An empty folder to fill; removed afterwards unless it was published.

        To be used under `lock`: remains of a killed predecessor are removed first.
        """
        parent = self.root / "store" / stage
        parent.mkdir(parents=True, exist_ok=True)
        for left_over in parent.glob(f".{key}*"):
            remove(left_over)
        folder = parent / f".{key}.{uuid.uuid4().hex[:8]}"
        folder.mkdir()
        try:
            yield folder
        finally:
            remove(folder)

    @contextmanager
    def lock(
        self, stage: str, key: str, on_wait: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Hold the key; calls `on_wait` once if another process holds it, then waits."""
        path = self._lock_path(stage, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            told = False
            while not _try_lock(file.fileno()):
                if on_wait and not told:
                    on_wait()
                told = True
                time.sleep(_POLL_S)
            yield

    def is_locked(self, stage: str, key: str) -> bool:
        """Whether a living process works on this key."""
        try:
            with self._lock_path(stage, key).open("r") as file:
                return not _try_lock(file.fileno())
        except OSError:
            return False

    def _lock_path(self, stage: str, key: str) -> Path:
        return self.root / "locks" / f"{stage}-{key}.lock"


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Size and SHA-256 of every file beneath `folder`, by relative path."""
    return {
        path.relative_to(folder).as_posix(): FileRecord(
            size=path.stat().st_size, sha256=sha256_file(path)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def _damage(folder: Path, manifest: Manifest, deep: bool) -> str | None:
    for name, record in manifest.files.items():
        path = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            return f"{MANIFEST} names a file outside its folder: {name}"
        if not path.is_file():
            return f"{name} was deleted"
        if path.stat().st_size != record.size:
            return f"{name} was changed: {record.size} bytes → {path.stat().st_size}"
        if deep and sha256_file(path) != record.sha256:
            return f"{name} was changed: its SHA-256 differs"
    return None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
