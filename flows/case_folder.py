"""One output folder: plain results at the top, the store and the records beneath `.porf`."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from pipeline.errors import InputError
from pipeline.store.digest import HashCache
from pipeline.store.files import disk_error, remove, replace_tree, write_json, write_text
from pipeline.store.manifest import Manifest
from pipeline.store.store import Store
from stages.registry import STAGES

HIDDEN = ".porf"


class RunRecord(BaseModel):
    """What the last command asked for, so that others can show, explain and continue it.

    Attributes:
        photos: absolute path of the photos, or of the case that the run entered with.
        external: absolute paths of the user's files by role, photos included.
        preset: name it started from.
        settings: resolved options.
        photo_files: SHA-256 of the photos by name: who this folder belongs to.
        keys: key of each stage's result, as far as known.
        flow_run_id: Prefect's id of the run.
    """

    photos: str
    external: dict[str, str]
    preset: str
    settings: dict[str, Any]
    photo_files: dict[str, str] = Field(default_factory=dict)
    keys: dict[str, str] = Field(default_factory=dict)
    flow_run_id: str | None = None


class StageState(BaseModel):
    """What happened to a stage last.

    Attributes:
        status: `done` (computed), `cached` (found), `running`, or `failed`.
        key: of the result in question.
        at: ISO 8601, UTC.
        reason: why it ran, or how it failed.
    """

    status: str
    key: str
    at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    reason: str = ""


class CaseFolder:
    """The output folder of one case."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.hidden = self.root / HIDDEN
        self.store = Store(self.hidden)

    @property
    def prefect_results(self) -> Path:
        """Where Prefect keeps its small cache records of this case."""
        return self.hidden / "prefect-results"

    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return (self.hidden / "run.json").is_file()

    def create(self) -> None:
        """Make the folder.

        Raises:
            InputError: it cannot be written, is a file, or holds files of somebody else.
        """
        if self.root.is_file():
            raise InputError(f"{self.root} is a file: expected a folder for the results")
        if self.root.is_dir() and not self.hidden.is_dir() and any(self.root.iterdir()):
            raise InputError(
                f"{self.root} holds files that are not of this program",
                hint="choose an empty or new folder with -o",
            )
        try:
            self.hidden.mkdir(parents=True, exist_ok=True)
            write_text(self.hidden / "README.txt", _README)
        except OSError as error:
            raise disk_error(error, self.root) from error

    def hashes(self) -> HashCache:
        """Remembered hashes of the user's files."""
        return HashCache(self.hidden / "hashes.json")

    def load_record(self) -> RunRecord:
        """The last run's record; raises `InputError` where there is none."""
        path = self.hidden / "run.json"
        try:
            return RunRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError as error:
            raise InputError(
                f"{self.root} is not an output folder: no run was started there",
                hint="start one with: porf run PHOTOS -o " + str(self.root),
            ) from error
        except ValidationError as error:
            raise InputError(f"{path} is damaged; run `porf run` again with the same -o") from error

    def save_record(self, record: RunRecord) -> None:
        """Replace the last run's record."""
        write_text(self.hidden / "run.json", record.model_dump_json(indent=1))

    def current_manifests(self) -> dict[str, Manifest]:
        """The sound manifests behind the last run's results, by stage."""
        if not self.exists():
            return {}
        keys = self.load_record().keys
        found = {name: self.store.find(name, keys[name])[0] for name in STAGES if name in keys}
        return {name: manifest for name, manifest in found.items() if manifest}

    def load_state(self, stage: str) -> StageState | None:
        """What happened to a stage last, if anything."""
        try:
            return StageState.model_validate_json(self._state_path(stage).read_bytes())
        except (OSError, ValidationError):
            return None

    def save_state(self, stage: str, state: StageState) -> None:
        """Record what happened to a stage."""
        write_text(self._state_path(stage), state.model_dump_json(indent=1))

    def publish_results(self, manifests: Mapping[str, Manifest]) -> list[str]:
        """Let the top of the folder show exactly the results of these artifacts.

        Returns:
            Names that were removed because no current artifact stands behind them.
        """
        shown = self._shown()
        wanted: dict[str, str] = {}
        for name, (manifest, path) in _result_sources(self.store, manifests).items():
            wanted[name] = f"{manifest.stage}/{manifest.key}/{manifest.content}"
            if shown.get(name) != wanted[name] or not (self.root / name).exists():
                replace_tree(path, self.root / name)
        gone = [name for name in shown if name not in wanted]
        for name in gone:
            remove(self.root / name)
        write_json(self.hidden / "results.json", wanted)
        return gone

    def _shown(self) -> dict[str, str]:
        try:
            return dict(json.loads((self.hidden / "results.json").read_bytes()))
        except (OSError, ValueError):
            return {}

    def _state_path(self, stage: str) -> Path:
        return self.hidden / "state" / f"{stage}.json"


def _result_sources(
    store: Store, manifests: Mapping[str, Manifest]
) -> dict[str, tuple[Manifest, Path]]:
    sources = {}
    for name, manifest in manifests.items():
        for result in STAGES[name].results:
            path = store.artifact(name, manifest.key) / result
            if path.exists():
                sources[result] = (manifest, path)
    return sources


def check_owner(folder: CaseFolder, photos: Path, photo_files: Mapping[str, str]) -> None:
    """Refuse an output folder that belongs to other photos.

    The same folder of photos may grow or change; the same photos may move.
    """
    if not folder.exists():
        return
    record = folder.load_record()
    same_place = Path(record.photos) == photos
    shared = set(record.photo_files.values()) & set(photo_files.values())
    if not same_place and not shared and record.photo_files:
        raise InputError(
            f"{folder.root} belongs to other photos: {record.photos}",
            hint="choose another folder with -o",
        )


def names(items: Iterable[str], most: int = 5) -> str:
    """A short list of names for a sentence."""
    listed = sorted(items)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more


_README = """Working files of the PoRF pipeline. The results are one folder up.

store/   finished artifacts of every stage, with their manifests; safe to delete, then recomputed
work/    checkpoints and logs of work in progress
"""
