"""`batch.json`: how every run of a batch ended, with its figures."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from flows.batch.entries import BatchRun
from flows.case_folder import CaseFolder
from flows.plan import external_files
from pipeline.errors import InputError
from pipeline.formats.views import load_views
from pipeline.store.digest import digest
from pipeline.store.files import write_text
from stages.registry import STAGES

RECORD = "batch.json"
Status = Literal["waiting", "running", "done", "cached", "failed", "interrupted"]
ENDED_WELL = ("done", "cached")


class Figure(BaseModel):
    """One measured value; None where it could not be measured."""

    value: float | int | str | bool | None
    unit: str = ""


class RunResult(BaseModel):
    """How one run of a batch ended.

    Attributes:
        name: of the run and of its output folder.
        case, preset, seed: what the sweep varied.
        photos: folder of photos.
        status: `done` (computed), `cached` (was there already), `failed`, `interrupted`, or not
            ended yet.
        stage: the one that failed or runs.
        message, hint: why it failed, and what to do.
        wall_s: computing time behind the results, seconds; what is cached counts too.
        peak_memory_mb: of the largest stage.
        warnings: what the stages want looked at.
        views: photos registered and given.
        figures: metrics by name.
        report: path of the report beneath the batch's folder.
        fingerprint: of all that could make a failed run end otherwise.
    """

    name: str
    case: str
    preset: str
    seed: int
    photos: str
    status: Status = "waiting"
    stage: str | None = None
    message: str = ""
    hint: str | None = None
    wall_s: float = 0.0
    peak_memory_mb: float = 0.0
    warnings: list[str] = Field(default_factory=list)
    views: tuple[int, int] | None = None
    figures: dict[str, Figure] = Field(default_factory=dict)
    report: str | None = None
    fingerprint: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether its results are there."""
        return self.status in ENDED_WELL


class BatchRecord(BaseModel):
    """The whole batch.

    Attributes:
        format: raised when readers must change.
        source: folder or list that it came from.
        updated_at: ISO 8601, UTC.
        runs: in the order of the batch.
    """

    format: Literal[1] = 1
    source: str
    updated_at: str = ""
    runs: list[RunResult] = Field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> "BatchRecord | None":
        """The record of an earlier command, None where there is none that can be read."""
        try:
            return cls.model_validate_json((folder / RECORD).read_bytes())
        except (OSError, ValidationError):
            return None

    def save(self, folder: Path) -> None:
        """Replace the record in one step."""
        stamped = self.model_copy(
            update={"updated_at": datetime.now(UTC).isoformat("T", "seconds")}
        )
        write_text(folder / RECORD, stamped.model_dump_json(indent=1))


def new_result(run: BatchRun) -> RunResult:
    """A run that has not started."""
    photos = str(run.request.photos) if run.request else ""
    return RunResult(name=run.name, case=run.case, preset=run.preset, seed=run.seed, photos=photos)


def fingerprint(run: BatchRun) -> str:
    """What decides how a run ends: options, the user's files, the code's versions.

    Raises:
        InputError: one of the user's files is not there.
    """
    assert run.request
    folder = CaseFolder(run.request.out)
    return digest(
        {
            "settings": run.request.settings,
            "files": external_files(run.request.paths, folder.hashes()),
            "versions": {name: stage.version for name, stage in STAGES.items()},
        }
    )


def with_outcome(result: RunResult, out: Path) -> RunResult:
    """The result with everything that the run's output folder tells."""
    folder = CaseFolder(out)
    manifests = folder.current_manifests()
    return result.model_copy(
        update={
            "wall_s": round(sum(m.wall_s for m in manifests.values()), 2),
            "peak_memory_mb": max((m.peak_memory_mb for m in manifests.values()), default=0.0),
            "warnings": [f"{n}: {r}" for n, m in manifests.items() for r in m.verdict.reasons],
            "views": _views(out),
            "figures": _figures(out),
            "report": f"{out.name}/report.html" if (out / "report.html").is_file() else None,
        }
    )


def _views(out: Path) -> tuple[int, int] | None:
    try:
        views = load_views(out / "views.json")
    except InputError:
        return None
    return sum(view.registered for view in views), len(views)


def _figures(out: Path) -> dict[str, Figure]:
    try:
        metrics: list[dict[str, Any]] = json.loads((out / "metrics.json").read_bytes())["metrics"]
        return {m["name"]: Figure(value=m["value"], unit=m["unit"] or "") for m in metrics}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
