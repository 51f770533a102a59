"""Writing that is seen whole or not at all."""

import errno
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from pipeline.errors import InputError

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted there",
}


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` in one step; a crash leaves the old file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON in one step."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False))


def replace_tree(source: Path, target: Path) -> None:
    """Put a copy of the file or folder `source` at `target`; readers see the old one or the new."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    try:
        if source.is_dir():
            shutil.copytree(source, temporary)
        else:
            shutil.copy2(source, temporary)
        swap(temporary, target)
    finally:
        remove(temporary)


def swap(new: Path, target: Path) -> None:
    """Rename `new` to `target`, moving away a folder that stands there."""
    if target.is_dir() and not target.is_symlink():
        old = target.with_name(f".{target.name}.old-{uuid.uuid4().hex[:8]}")
        target.rename(old)
        new.rename(target)
        remove(old)
    else:
        new.replace(target)


def remove(path: Path) -> None:
    """Delete a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def disk_error(error: OSError, folder: Path) -> InputError:
    """A disk's complaint in a user's words."""
    problem = _DISK_ERRORS.get(error.errno or 0, os.strerror(error.errno or errno.EIO))
    where = error.filename or folder
    return InputError(f"cannot write {where}: {problem}", hint="free space or choose another -o")


def is_disk_error(error: OSError) -> bool:
    """Whether the disk, not the program, is at fault."""
    return error.errno in _DISK_ERRORS
