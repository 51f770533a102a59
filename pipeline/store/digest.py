"""Content hashes of values, files and folders."""

import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.store.files import write_json

KEY_LENGTH = 32
"""Hex digits of a key: 128 bits are far beyond any accidental collision, and fit in a path."""


def digest(value: Any) -> str:
    """Hash of a JSON-serialisable value, independent of the order of dictionary keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:KEY_LENGTH]


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class HashCache:
    """SHA-256 of user files, remembered by path, size and times.

    The time of change counts beside that of modification, which copying tools preserve and which a
    clock that jumped back may repeat. Hashing a thousand photos anew at every command would take
    longer than everything else that an unchanged run does.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[Any]] = self._load()
        self._changed = False

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file, computed only where size or a time changed."""
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
        known = self._known.get(str(path))
        if known and known[:-1] == stamp:
            return str(known[-1])
        value = sha256_file(path)
        self._known[str(path)] = [*stamp, value]
        self._changed = True
        return value

    def save(self) -> None:
        """Remember for the next command; a disk that refuses only costs time then."""
        if self._changed:
            with suppress(OSError):
                write_json(self._path, self._known)
            self._changed = False

    def _load(self) -> dict[str, list[Any]]:
        try:
            known = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def fingerprint(path: Path, cache: HashCache, companions: Iterable[str] = ()) -> dict[str, str]:
    """SHA-256 by name of the files that make up a user's input.

    Args:
        path: a file, or a folder whose visible files count (not its subfolders).
        companions: names of files that count too where they lie beside a file.

    Raises:
        InputError: nothing there, or it cannot be read.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist", hint="check the path")
    try:
        if path.is_dir():
            files = [p for p in path.iterdir() if not p.name.startswith(".") and p.is_file()]
        else:
            beside = [path.with_name(name) for name in companions]
            files = [path, *(p for p in beside if p.is_file() and p != path)]
        return {p.name: cache.sha256(p.absolute()) for p in sorted(files)}
    except PermissionError as error:
        raise InputError(f"{error.filename} cannot be read: permission denied") from error
