"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from flows.settings import DEFAULT_PRESET

OutArgument = Annotated[Path, typer.Argument(help="Output folder of a run.", metavar="OUT")]
PresetOption = Annotated[
    str, typer.Option("--preset", help="Preset to start from (`porf options` lists them).")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one option; may be repeated.", metavar="STAGE.OPTION=VALUE"),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="YAML file with options, over the preset.")
]
MasksOption = Annotated[
    Path | None, typer.Option("--masks", help="Folder of masks, one a photo (white = object).")
]
GroundTruthOption = Annotated[
    Path | None,
    typer.Option("--ground-truth", help="True cameras (IDR npz) to measure poses against."),
]
GroundTruthMeshOption = Annotated[
    Path | None,
    typer.Option("--ground-truth-mesh", help="True surface to measure the mesh against."),
]
DEFAULT = DEFAULT_PRESET


def external_paths(
    masks: Path | None, ground_truth: Path | None, ground_truth_mesh: Path | None
) -> dict[str, Path]:
    """The user's files by role, absolute."""
    given = {
        "masks": masks,
        "ground_truth": ground_truth,
        "ground_truth_mesh": ground_truth_mesh,
    }
    return {role: absolute(path) for role, path in given.items() if path is not None}


def absolute(path: Path) -> Path:
    """An absolute path without `~`; links stay as they are."""
    return path.expanduser().absolute()
