"""Results copied to object storage, or to any other place that fsspec reaches.

Beneath the URL lie the results as at the top of the output folder, and `porf-published.json` with
the size and SHA-256 of each. An interrupted copy goes on where it was; what lies there already, by
that list and by its size there, is not sent again. Credentials come from the surroundings (for S3:
AWS's variables and files), never from the URL, and are written nowhere.
"""

import hashlib
import importlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError

from flows.case_folder import CaseFolder
from pipeline.errors import InputError, PorfError
from pipeline.formats.json_text import parse_json
from pipeline.progress import NullProgress, Progress
from pipeline.store.manifest import FileRecord
from pipeline.text import visible
from stages.registry import STAGES

INDEX = "porf-published.json"
_EXTRAS = {"s3": "s3fs", "s3a": "s3fs"}
_AT_ONCE = 8
_PER_ROUND = 64
"""After so many files the list is written, so that an interrupted copy goes on from there."""
_SECRET = ("SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY")


class Index(BaseModel):
    """What lies beneath a URL.

    Attributes:
        complete: whether all files of the results are there.
        files: by path beneath the URL.
    """

    complete: bool = False
    files: dict[str, FileRecord] = Field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """What a publication did: files sent, files that were there already, bytes of all."""

    sent: int
    kept: int
    size: int


def check_url(url: str) -> str:
    """The URL, if results can be published there.

    Raises:
        InputError: no URL, one that holds credentials, or a kind of storage that is not installed.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            "the URL to publish to must hold no user, password or query",
            hint="give credentials by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile",
        )
    if len(parts.scheme) < 2 or not (parts.netloc or parts.path.strip("/")):
        raise InputError(
            f"'{visible(url)}' is no URL of a storage", hint="as s3://bucket/folder, file:///folder"
        )
    if visible(url) != url or ".." in parts.path.split("/"):
        raise InputError(f"'{visible(url)}' holds '..' or characters that do not print")
    with _in_our_words(url):
        from fsspec.registry import get_filesystem_class  # noqa: PLC0415

        if parts.scheme in _EXTRAS:
            importlib.import_module(_EXTRAS[parts.scheme])
        get_filesystem_class(parts.scheme)
    return url.rstrip("/")


def publish(
    folder: CaseFolder, url: str, verify: bool = False, progress: Progress | None = None
) -> Published:
    """Copy the results of a finished run to `url`.

    Args:
        verify: read every file back and compare its SHA-256; else sizes alone are compared.

    Raises:
        InputError: no results, a bad URL, or a storage that refuses us.
        PorfError: the storage failed, or a copy differs.
    """
    wanted = result_files(folder)
    if not wanted:
        raise InputError(
            f"{folder.root} holds no results to publish", hint="finish its run: porf run PHOTOS …"
        )
    with _in_our_words(url):
        target = _Target(check_url(url))
        return _copy(target, wanted, verify, progress or NullProgress())


def result_files(folder: CaseFolder) -> dict[str, tuple[Path, FileRecord]]:
    """Files of the current results, with their records, by path beneath the output folder."""
    found = {}
    for stage, manifest in folder.current_manifests().items():
        artifact = folder.store.artifact(stage, manifest.key)
        for name, record in manifest.files.items():
            if any(name == r or name.startswith(f"{r}/") for r in STAGES[stage].results):
                found[name] = (artifact / name, record)
    return found


class _Target:
    """A folder on the storage."""

    def __init__(self, url: str) -> None:
        import fsspec  # noqa: PLC0415

        self.url = url
        # what others wrote meanwhile must be seen
        self.storage, self.root = fsspec.core.url_to_fs(url, use_listings_cache=False)

    def path(self, name: str) -> str:
        return f"{self.root}/{name}"

    def sizes(self) -> dict[str, int]:
        """Sizes of all files by path beneath the root."""
        self.storage.invalidate_cache()
        found: dict[str, dict[str, Any]] = self.storage.find(self.root, detail=True)
        return {path.removeprefix(f"{self.root}/"): info["size"] for path, info in found.items()}

    def index(self) -> Index:
        """The list of an earlier publication; an empty one where there is none to be read."""
        try:
            return Index.model_validate(parse_json(self.storage.cat_file(self.path(INDEX))))
        except (FileNotFoundError, ValueError, ValidationError):
            return Index()

    def save(self, files: Mapping[str, FileRecord], complete: bool) -> None:
        index = Index(complete=complete, files=dict(sorted(files.items())))
        self.storage.pipe_file(self.path(INDEX), index.model_dump_json(indent=1).encode())

    def send(self, source: Path, name: str) -> None:
        self.storage.makedirs(self.path(name).rpartition("/")[0], exist_ok=True)
        self.storage.put_file(str(source), self.path(name))

    def sha256(self, name: str) -> str:
        with self.storage.open(self.path(name), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _copy(
    target: _Target,
    wanted: Mapping[str, tuple[Path, FileRecord]],
    verify: bool,
    progress: Progress,
) -> Published:
    there, listed = target.sizes(), target.index().files
    files = {
        name: record
        for name, (_, record) in wanted.items()
        if listed.get(name) == record and there.get(name) == record.size
    }
    kept, left = len(files), [name for name in wanted if name not in files]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for start in range(0, len(left), _PER_ROUND):
            names = left[start : start + _PER_ROUND]
            list(pool.map(lambda name: target.send(wanted[name][0], name), names))
            files |= {name: wanted[name][1] for name in names}
            target.save(files, complete=False)
            progress.advance("publish", start + len(names), len(left))
        _check(target, wanted, verify, pool)
    for name in set(listed) - set(wanted):
        if name in there:
            target.storage.rm_file(target.path(name))  # a result that there is no more
    target.save(files, complete=True)
    size = sum(record.size for _, record in wanted.values())
    return Published(len(left), kept, size)


def _check(
    target: _Target,
    wanted: Mapping[str, tuple[Path, FileRecord]],
    verify: bool,
    pool: ThreadPoolExecutor,
) -> None:
    """Compare what lies there with what was meant; damaged files are sent anew next time."""
    there = target.sizes()
    wrong = [name for name, (_, record) in wanted.items() if there.get(name) != record.size]
    if verify and not wrong:
        hashes = dict(zip(wanted, pool.map(target.sha256, wanted), strict=True))
        wrong = [name for name, (_, record) in wanted.items() if hashes[name] != record.sha256]
    if wrong:
        sound = {name: record for name, (_, record) in wanted.items() if name not in wrong}
        target.save(sound, complete=False)
        raise PorfError(
            f"{target.url}: {len(wrong)} files differ from what was sent, as {wrong[0]}",
            hint="the same command sends them again",
        )


@contextmanager
def _in_our_words(url: str) -> Iterator[None]:
    """Storages raise errors of their own; none of them shall show a credential."""
    try:
        yield
    except PorfError:
        raise
    except ImportError as error:
        scheme = urlsplit(url).scheme
        extra = "install it with: pip install 'porf-pipeline[s3]'" if scheme in _EXTRAS else None
        raise InputError(f"publishing to {scheme}:// needs a package: {error}", extra) from error
    except ValueError as error:
        raise InputError(f"{url}: {_without_secrets(str(error))}") from error
    except FileNotFoundError as error:
        raise InputError(
            f"{url}: there is no such bucket or folder, or a result was deleted meanwhile",
            hint="create the bucket first; it is not made for you",
        ) from error
    except Exception as error:
        raise _refused(url, error) from None  # its chain may hold requests with their headers


def _refused(url: str, error: Exception) -> PorfError:
    name, said = type(error).__name__, _without_secrets(str(error))
    if isinstance(error, PermissionError) or "Credential" in name:
        return InputError(
            f"{url}: access denied ({said})",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, for an account "
            "that may write there",
        )
    return PorfError(
        f"{url}: the storage failed ({name}: {said})",
        hint="for a server other than Amazon's set AWS_ENDPOINT_URL; the same command goes on",
    )


def _without_secrets(text: str) -> str:
    for name, value in os.environ.items():
        if len(value) > 3 and any(word in name.upper() for word in _SECRET):
            text = text.replace(value, "***")
    return visible(text)
