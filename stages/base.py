"""The contract between a stage and whoever runs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.config import StageConfig
from pipeline.progress import NullProgress, Progress
from pipeline.verdict import Verdict


@dataclass(frozen=True)
class StageContext:
    """Everything a stage may touch.

    Attributes:
        inputs: artifact folders of the upstream stages by stage name; read only.
        external: files or folders of the user by role (`photos`, `masks`, `ground_truth`, ...);
            roles that were not given are absent.
        config: the stage's resolved options.
        out: empty folder to fill; published whole, or never seen.
        work: folder kept between attempts of the same key: checkpoints live here.
        seed: source of every random draw.
        progress: listener.
        manifests: manifests of the upstream stages by stage name (options, times, versions).
    """

    inputs: Mapping[str, Path]
    external: Mapping[str, Path]
    config: Any
    out: Path
    work: Path
    seed: int = 0
    progress: Progress = field(default_factory=NullProgress)
    manifests: Mapping[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline; the work itself is `run(ctx) -> Verdict` in `stages/<name>.py`.

    That module is imported when the stage runs, not before: it may take seconds to load torch or
    Open3D, and `porf status` must not wait for them.

    Attributes:
        name: as users type it.
        version: raised whenever the same inputs and options would give another result.
        config_type: the stage's options.
        inputs: names of the stages whose artifacts it reads.
        description: one line for users.
        external: roles of user files it reads; their content is part of the key.
        results: names inside the artifact that users find at the top of their output folder.
        entry: role of a user's files from which it can make its artifact instead of from `inputs`;
            a run that is given them starts here.
        check: looks at the user's files before anything runs, so that a mistyped path is told in
            the first second and not after an hour; takes the external files and the options.
    """

    name: str
    version: int
    config_type: type[StageConfig]
    inputs: tuple[str, ...]
    description: str
    external: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    entry: str | None = None
    check: Callable[[Mapping[str, Path], Any], None] | None = None

    def run(self, ctx: StageContext) -> Verdict:
        """Fill `ctx.out` and judge the result."""
        verdict: Verdict = import_module(f"stages.{self.name}").run(ctx)
        return verdict
