"""One case as it is handed to a worker, and as Prefect's pages ask for it."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from flows.publish import check_url
from flows.request import RunRequest, case_name, entering
from flows.settings import DEFAULT_PRESET, resolve
from pipeline.errors import InputError


class Case(BaseModel):
    """A case to reconstruct; paths as the worker sees them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    photos: Path = Field(description="folder of photos, or a case in the PoRF data convention")
    out: Path = Field(description="output folder")
    preset: str = Field(DEFAULT_PRESET, description="preset to start from")
    options: dict[str, Any] = Field(
        default_factory=dict,
        description='options by name over the preset, as {"train.steps": 6000, "seed": 1}',
    )
    masks: Path | None = Field(None, description="folder of masks, one a photo")
    cameras: Path | None = Field(None, description="cameras that exist already")
    ground_truth: Path | None = Field(None, description="true cameras, for the metrics only")
    ground_truth_mesh: Path | None = Field(None, description="true surface, for the metrics only")
    start: str | None = Field(None, description="compute this stage and all after it anew")
    stop: str | None = Field(None, description="stop after this stage")
    force: tuple[str, ...] = Field((), description="stages to compute anew")
    publish: str | None = Field(
        None, description="copy the results there at the end, as s3://bucket/folder"
    )

    @property
    def name(self) -> str:
        """For people."""
        return f"{case_name(self.photos)} @ {self.preset}"

    def request(self) -> RunRequest:
        """What a run is asked to do.

        Raises:
            InputError: an unknown preset or option, paths that are not absolute, or a URL that
                nothing can be published to.
        """
        roles = ("masks", "cameras", "ground_truth", "ground_truth_mesh")
        external = {role: path for role in roles if (path := getattr(self, role)) is not None}
        if self.publish:
            check_url(self.publish)
        for path in (self.photos, self.out, *external.values()):
            if not path.is_absolute() or ".." in path.parts:
                raise InputError(f"{path}: a worker needs absolute paths without '..'")
        return RunRequest(
            photos=self.photos,
            out=self.out,
            preset=self.preset,
            settings=resolve(self.preset, layer=self.options).model_dump(mode="json"),
            start=self.start,
            stop=self.stop,
            force=list(self.force),
            **entering(self.photos, external),
        )
