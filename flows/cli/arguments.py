"""Arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from flows.settings import DEFAULT_PRESET
from pipeline.errors import InputError

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
CamerasOption = Annotated[
    Path | None,
    typer.Option(
        "--cameras",
        help="Cameras that exist already: a COLMAP model, nerfstudio's transforms.json, a PoRF case"
        " or its npz, MobileBrick's or ARKit's poses.",
    ),
]
RoiOption = Annotated[
    str | None,
    typer.Option(
        "--roi",
        help="Region of interest in the world frame: a sphere x,y,z,radius or a box"
        " x0,y0,z0,x1,y1,z1.",
        metavar="NUMBERS",
    ),
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
    masks: Path | None,
    ground_truth: Path | None,
    ground_truth_mesh: Path | None,
    cameras: Path | None = None,
) -> dict[str, Path]:
    """The user's files by role, absolute."""
    given = {
        "masks": masks,
        "cameras": cameras,
        "ground_truth": ground_truth,
        "ground_truth_mesh": ground_truth_mesh,
    }
    return {role: absolute(path) for role, path in given.items() if path is not None}


def roi_overrides(roi: str | None) -> list[str]:
    """What `--roi` means as `--set`.

    Raises:
        InputError: neither four nor six numbers.
    """
    if roi is None:
        return []
    try:
        numbers = [float(word) for word in roi.replace(",", " ").split()]
    except ValueError:
        numbers = []
    if len(numbers) == 4:
        x, y, z, radius = numbers
        return [f"scene.roi_center=[{x!r}, {y!r}, {z!r}]", f"scene.roi_radius={radius!r}"]
    if len(numbers) == 6:
        return [f"scene.roi_box={numbers!r}"]
    raise InputError(
        f"--roi {roi}: expected x,y,z,radius or x0,y0,z0,x1,y1,z1",
        hint="`porf roi OUT` shows the present region and its numbers",
    )


def absolute(path: Path) -> Path:
    """An absolute path without `~`; links stay as they are."""
    return path.expanduser().absolute()


def output_folder(case: Path, out: Path | None = None) -> Path:
    """Where the results of `porf train CASE` lie."""
    return absolute(out) if out else Path.cwd() / "porf_out" / case.name
