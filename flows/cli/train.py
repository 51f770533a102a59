"""`porf train` and `porf mesh`: a case that somebody else made, trained and meshed."""

import shlex
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from flows.case_folder import CaseFolder
from flows.cli import console
from flows.cli.arguments import (
    DEFAULT,
    ConfigOption,
    GroundTruthMeshOption,
    GroundTruthOption,
    SetOption,
    absolute,
    output_folder,
)
from flows.cli.inspect import changed_settings
from flows.cli.run import execute
from flows.cli.stage import perform_stage
from flows.plan import Choice, external_files, look_ahead
from flows.request import RunRequest
from flows.settings import resolve, settings_from
from pipeline.errors import InputError
from pipeline.formats.case_files import own_truth
from pipeline.store.files import replace_tree
from pipeline.store.manifest import Manifest
from stages.registry import find_stage

CaseArgument = Annotated[
    Path,
    typer.Argument(
        help="Case in the PoRF data convention, or the output folder of a run to go on with.",
        metavar="CASE|OUT",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Output folder.", show_default="porf_out/<CASE's name>"),
]
KEPT = ("mesh.ply", "mesh.glb", "mesh.json")
CAMERAS = ("cameras_refine_porf.npz", "refined_pose.txt")


def train(
    case: CaseArgument,
    out: OutOption = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="Preset to start from.", show_default=DEFAULT),
    ] = None,
    overrides: SetOption = None,
    config: ConfigOption = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume/--no-resume",
            help="Go on from the checkpoint, or take the finished result; --no-resume: train anew.",
        ),
    ] = True,
    stop: Annotated[str | None, typer.Option("--to", help="Stop after this stage.")] = None,
    ground_truth: GroundTruthOption = None,
    ground_truth_mesh: GroundTruthMeshOption = None,
) -> None:
    """Train a finished case, then mesh, evaluate and report; what is done is not done again.

    True cameras (`cameras.npz`) in the case are used by the evaluation only.
    """
    overrides = overrides or []
    source = absolute(case)
    if CaseFolder(source).exists():
        request = _going_on(CaseFolder(source), preset, config, overrides)
    else:
        request = RunRequest(
            photos=source,
            source="case",
            out=output_folder(source, out),
            preset=preset or DEFAULT,
            settings=resolve(preset or DEFAULT, config, overrides).model_dump(mode="json"),
            external=_truth(source, ground_truth, ground_truth_mesh),
        )
    request.stop = stop
    request.force = [] if resume else ["train"]
    execute(request, shlex.join(["porf", "train", str(request.out)]))


def mesh(
    case: CaseArgument,
    out: OutOption = None,
    resolution: Annotated[
        int | None, typer.Option(help="Lattice cells along the region's diameter.")
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(
            help="Signed distance of the surface, radii of the region; positive: thicker."
        ),
    ] = None,
    overrides: SetOption = None,
) -> None:
    """Mesh a training; one that is not finished, from its newest checkpoint.

    The mesh of an unfinished training goes to OUT/at_step_<STEP>, with the cameras of that step.
    """
    overrides = list(overrides or [])
    foreign = [text for text in overrides if not text.strip().startswith("mesh.")]
    if foreign:
        raise InputError(
            f"--set {foreign[0]}: meshing has the options of the stage `mesh` only",
            hint="`porf options mesh` lists them; to train with other options: porf train",
        )
    for name, value in (("resolution", resolution), ("threshold", threshold)):
        if value is not None:
            overrides.append(f"mesh.{name}={value}")
    source = absolute(case)
    folder = CaseFolder(source)
    if not folder.exists():
        folder = CaseFolder(output_folder(source, out))
    if not folder.exists():
        raise InputError(
            f"nothing was trained in {folder.root}", hint=f"train first: porf train {source}"
        )
    request = _going_on(folder, None, None, overrides)
    known = _known_results(folder, request)
    if "train" in known:
        request.stop = "mesh"
        execute(request, shlex.join(["porf", "mesh", str(folder.root)]))
    else:
        _mesh_checkpoint(folder, request, known)


def _going_on(
    folder: CaseFolder, preset: str | None, config: Path | None, overrides: list[str]
) -> RunRequest:
    """The last run of a folder, with its options where no others are given."""
    record = folder.load_record()
    settings = changed_settings(record, preset, config, overrides)
    source = "case" if "case" in record.external else "photos"
    others = {role: Path(path) for role, path in record.external.items() if role != source}
    return RunRequest(
        photos=Path(record.photos),
        source=source,
        out=folder.root,
        preset=preset or record.preset,
        settings=settings.model_dump(mode="json"),
        external=others,
    )


def _truth(case: Path, cameras: Path | None, mesh: Path | None) -> dict[str, Path]:
    """Files of the truth by role: those given, else the true cameras that lie in the case."""
    given = {"ground_truth": cameras, "ground_truth_mesh": mesh}
    found = {role: absolute(path) for role, path in given.items() if path is not None}
    if cameras is None:
        beside, refusal = own_truth(case)
        if beside:
            found["ground_truth"] = beside
        elif refusal:
            console.print(f"[yellow]! {refusal}[/]")
    return found


def _known_results(folder: CaseFolder, request: RunRequest) -> dict[str, Manifest]:
    """Sound results of the stages up to training, by name."""
    external = external_files(request.paths, folder.hashes())
    choice = Choice.of(stop="train", roles=external)
    settings = settings_from(request.settings)
    prospects = look_ahead(folder, settings, external, choice)
    return {p.stage: p.manifest for p in prospects if p.manifest and not p.reasons}


def _mesh_checkpoint(folder: CaseFolder, request: RunRequest, known: dict[str, Manifest]) -> None:
    if "scene" not in known or "matches" not in known:
        raise InputError(
            f"{folder.root} has no finished scene and matches: nothing is trained yet",
            hint=f"train first: porf train {folder.root}",
        )
    from pipeline.formats.case import load_case  # noqa: PLC0415
    from pipeline.porf.snapshot import write_snapshot  # noqa: PLC0415  (loads torch)

    settings = settings_from(request.settings)
    paths = {name: folder.store.artifact(name, known[name].key) for name in ("scene", "matches")}
    work = folder.store.work("train", _train_key(folder, request))
    case = load_case(paths["scene"], paths["matches"])
    with tempfile.TemporaryDirectory(prefix="porf-mesh-") as scratch:
        trained, built = Path(scratch) / "train", Path(scratch) / "mesh"
        step = write_snapshot(case, settings.train, work, trained, settings.seed)
        console.print(f"meshing the checkpoint of step {step} of {settings.train.steps}")
        inputs = {"scene": paths["scene"], "train": trained}
        perform_stage(find_stage("mesh"), settings, inputs, {}, built)
        for name in CAMERAS:
            replace_tree(trained / name, built / name)
        target = folder.root / f"at_step_{step:06d}"
        replace_tree(built, target)
    console.print(f"results in [bold]{escape(str(target))}[/]: {', '.join((*KEPT, *CAMERAS))}")


def _train_key(folder: CaseFolder, request: RunRequest) -> str:
    external = external_files(request.paths, folder.hashes())
    settings: Any = settings_from(request.settings)
    choice = Choice.of(stop="train", roles=external)
    recipe = look_ahead(folder, settings, external, choice)[-1].recipe
    if recipe is None:
        raise InputError(f"nothing is trained in {folder.root} yet")
    return recipe.key
