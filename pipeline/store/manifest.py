"""What was made, from what, how, and what its maker thinks of it."""

from typing import Any

from pydantic import BaseModel, Field

from pipeline.store.digest import digest
from pipeline.verdict import Verdict


class FileRecord(BaseModel):
    """Size in bytes and SHA-256 of one output file."""

    size: int
    sha256: str


class Recipe(BaseModel):
    """Everything that identifies a result before it is made.

    Attributes:
        stage: name.
        version: the stage's code version.
        options: resolved options that can change the result.
        seed: source of every random draw.
        inputs: content of the upstream artifacts by stage name.
        external: SHA-256 by file name of the user's files, by role.
    """

    stage: str
    version: int
    options: dict[str, Any]
    seed: int
    inputs: dict[str, str]
    external: dict[str, dict[str, str]]

    @property
    def key(self) -> str:
        """The content key."""
        return digest(self.model_dump(mode="json"))


class Manifest(BaseModel):
    """Record of a published artifact; `manifest.json` in its folder.

    Attributes:
        recipe: what it was made from.
        key: the recipe's key.
        files: output files by path relative to the artifact's folder.
        verdict: the stage's own judgement.
        paths: where the user's files were, by role (for the reader; not part of the key).
        started_at, finished_at: ISO 8601, UTC.
        wall_s: seconds.
        peak_memory_mb: largest resident size of the stage's process.
        libraries: versions of what did the work.
    """

    recipe: Recipe
    key: str
    files: dict[str, FileRecord]
    verdict: Verdict = Field(default_factory=Verdict)
    paths: dict[str, str] = Field(default_factory=dict)
    started_at: str = ""
    finished_at: str = ""
    wall_s: float = 0.0
    peak_memory_mb: float = 0.0
    libraries: dict[str, str] = Field(default_factory=dict)

    @property
    def stage(self) -> str:
        """Name of the stage that made it."""
        return self.recipe.stage

    @property
    def content(self) -> str:
        """What it is, whatever it was made from: equal outputs stop a cascade of reruns."""
        return digest([self.stage, {name: f.sha256 for name, f in self.files.items()}])
