"""What a run is asked to do, and whether that can be done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from flows.case_folder import CaseFolder, RunRecord, check_owner
from flows.plan import Choice, external_files
from flows.settings import DEFAULT_PRESET, settings_from
from pipeline.formats.case_files import is_case, own_truth
from stages.registry import route

PHOTO_FOLDERS = ("photos", "images")
"""Where a case's photos lie beneath its folder; else they lie in the folder itself."""


class RunRequest(BaseModel):
    """What a run is asked to do.

    Attributes:
        photos: folder of photos, or of the case that stands for them; absolute.
        source: which of the two it is.
        out: output folder, absolute.
        preset: name the settings started from (for display).
        settings: options by stage; missing ones take their defaults.
        external: the user's other files by role (`masks`, `ground_truth`, `ground_truth_mesh`).
        start, stop: as `--from` and `--to`.
        force: stages to compute anew.
    """

    photos: Path
    source: Literal["photos", "case"] = "photos"
    out: Path
    preset: str = DEFAULT_PRESET
    settings: dict[str, Any] = Field(default_factory=dict)
    external: dict[str, Path] = Field(default_factory=dict)
    start: str | None = None
    stop: str | None = None
    force: list[str] = Field(default_factory=list)

    @property
    def paths(self) -> dict[str, Path]:
        """All of the user's files by role."""
        return {self.source: self.photos, **self.external}


def case_name(photos: Path) -> str:
    """What a folder of photos shows: it may be the part of a case's folder that holds them."""
    return (photos.parent.name if photos.name in PHOTO_FOLDERS else "") or photos.name


def entering(photos: Path, external: Mapping[str, Path]) -> dict[str, Any]:
    """How a run enters with this folder: `source`, and `external` with the truth that lies in it.

    A folder of photos, or a case in the PoRF data convention that was made elsewhere.

    Raises:
        InputError: true cameras in the case that cannot be read.
    """
    if not is_case(photos):
        return {"source": "photos", "external": dict(external)}
    truth, _ = own_truth(photos)
    own = {"ground_truth": truth} if truth else {}
    return {"source": "case", "external": {**own, **external}}


def check_files(paths: Mapping[str, Path], settings: Any, names: tuple[str, ...]) -> None:
    """Let every stage look at the user's files before anything runs.

    Raises:
        InputError: a stage refuses them.
    """
    stages = route(paths)
    for name in names:
        stage = stages[name]
        if stage.check:
            stage.check(paths, getattr(settings, name))


def open_run(request: RunRequest) -> tuple[CaseFolder, Any, Choice, dict[str, dict[str, str]]]:
    """Validate a request and prepare its output folder.

    Raises:
        InputError: bad options or files, or an output folder that belongs to other photos.
    """
    settings = settings_from(request.settings)
    choice = Choice.of(request.start, request.stop, request.force, request.paths)
    check_files(request.paths, settings, choice.wanted)
    folder = CaseFolder(request.out)
    folder.create()
    external = external_files(request.paths, folder.hashes())
    check_owner(folder, request.photos, external[request.source])
    keys = folder.load_record().keys if folder.exists() else {}
    folder.save_record(
        RunRecord(
            photos=str(request.photos),
            external={role: str(path) for role, path in request.paths.items()},
            preset=request.preset,
            settings=settings.model_dump(mode="json"),
            photo_files=external[request.source],
            keys=keys,
        )
    )
    return folder, settings, choice, external
