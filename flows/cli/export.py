"""`porf export-cameras`: cameras for other programs."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.markup import escape

from flows.case_folder import CaseFolder
from flows.cli import console
from flows.cli.arguments import absolute, output_folder
from pipeline.errors import InputError
from pipeline.store.files import disk_error, replace_tree

if TYPE_CHECKING:
    from pipeline.sfm.export import CameraState

StateOption = Annotated[
    Literal["sfm", "refined"] | None,
    typer.Option("--state", help="Which cameras.", show_default="refined where there are any"),
]
FormatOption = Annotated[
    Literal["colmap", "nerfstudio", "idr", "all"], typer.Option("--format", help="File format.")
]
FrameOption = Annotated[
    Literal["world", "sfm", "unit-sphere"],
    typer.Option(
        "--frame",
        help="world: as given or found, that of the mesh; sfm: before any alignment;"
        " unit-sphere: the region of interest has radius 1.",
    ),
]
ViewsOption = Annotated[
    Literal["undistorted", "photos"],
    typer.Option("--views", help="Pinhole views, or the upright photos with their distortion."),
]


def export_cameras(
    case: Annotated[
        Path,
        typer.Argument(
            help="Output folder of a run, or a PoRF case, trained by `porf train` or not.",
            metavar="OUT|CASE",
        ),
    ],
    state: StateOption = None,
    form: FormatOption = "all",
    frame: FrameOption = "world",
    views: ViewsOption = "undistorted",
    images: Annotated[bool, typer.Option("--images/--no-images", help="Copy the images.")] = True,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder.", show_default="<OUT>_cameras_<STATE>"),
    ] = None,
) -> None:
    """Write the cameras of a run as a COLMAP model, for nerfstudio, or in the IDR convention."""
    from pipeline.sfm import export  # noqa: PLC0415  (loads pycolmap)

    folder = absolute(case)
    chosen = load_state(folder, state, views == "undistorted")
    formats = export.FORMATS if form == "all" else (form,)
    if form == "all" and views == "photos":
        formats = ("colmap", "nerfstudio")  # the IDR convention has no distortion
    target = absolute(out) if out else folder.with_name(f"{folder.name}_cameras_{chosen.state}")
    check_target(target, export.FRAME_FILE)
    with tempfile.TemporaryDirectory(prefix="porf-export-") as scratch:
        built = Path(scratch) / "export"
        names = export.write_export(built, chosen, formats, frame, images)
        try:
            replace_tree(built, target)
        except OSError as error:
            raise disk_error(error, target) from error
    unit = chosen.frame.unit if frame == "world" else frame
    console.print(
        f"[green]✓[/] {len(chosen.cameras)} {chosen.state} cameras → {escape(str(target))}"
        f" [dim]({', '.join(names)}; frame {frame}, unit {unit})[/]"
    )
    if chosen.distortion and "idr" in formats:
        k1, k2 = chosen.distortion
        console.print(
            f"[yellow]! cameras.npz leaves out the radial distortion that refinement found in the"
            f" images (k1 {k1:.4g}, k2 {k2:.4g}): the IDR convention cannot express it; the COLMAP"
            " model and transforms.json hold it[/]"
        )


def check_target(target: Path, mark: str) -> None:
    """Refuse to replace anything but an earlier export.

    Raises:
        InputError: the folder holds something else.
    """
    if not target.exists() or (target / mark).is_file():
        return
    if not target.is_dir() or any(target.iterdir()):
        raise InputError(
            f"{target} exists and is no earlier export", hint="choose another folder with -o"
        )


def load_state(
    folder: Path, state: Literal["sfm", "refined"] | None, undistorted: bool
) -> "CameraState":
    """The cameras of a run's output folder or of a case."""
    from pipeline.sfm import export  # noqa: PLC0415  (loads pycolmap)

    run = _run_of(folder)
    if run.exists():
        folder = run.root
    if not run.exists() or "case" in run.load_record().external:
        if not undistorted:
            raise InputError(f"{folder} comes from a case: it has undistorted views only")
        refined = (folder / export.REFINED_FILE).is_file()
        train = artifacts(folder).get("train") if run.exists() else None
        return export.state_of_case(folder, state or ("refined" if refined else "sfm"), train)
    found = artifacts(folder)
    for name in ("ingest", "sfm", "scene"):
        if name not in found:
            raise InputError(
                f"{folder} has no result of {name} yet", hint="run `porf run` to the stage scene"
            )
    parts = export.CaseParts(found["ingest"], found["sfm"], found["scene"], found.get("train"))
    return export.state_of_run(parts, state or ("refined" if parts.train else "sfm"), undistorted)


def _run_of(folder: Path) -> CaseFolder:
    """The run in a folder, or the one that `porf train` made of the case in it."""
    run, made = CaseFolder(folder), CaseFolder(output_folder(folder))
    if (
        not run.exists()
        and made.exists()
        and made.load_record().external.get("case") == str(folder)
    ):
        return made
    return run


def artifacts(folder: Path) -> dict[str, Path]:
    """Folders of the current results of a run, by stage."""
    case = CaseFolder(folder)
    keys = case.load_record().keys
    return {
        name: case.store.artifact(name, key)
        for name, key in keys.items()
        if case.store.find(name, key)[0]
    }
