"""`porf evaluate` and `porf compare`: measure results of any tool, set them side by side."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from flows.cli import console
from flows.cli.arguments import absolute
from pipeline.store.files import disk_error, write_json

if TYPE_CHECKING:
    from pipeline.metrics.compare import Comparison
    from pipeline.metrics.external import Answer

ProtocolOption = Annotated[
    Literal["dtu", "mobilebrick", "tanks_and_temples", "mesh", "poses", "images"],
    typer.Option("--protocol", help="How to measure; docs/evaluation.md has each in words."),
]
TruthOption = Annotated[
    Path,
    typer.Option(
        "--ground-truth",
        help="DTU's or MobileBrick's folder, a mesh, a cloud, cameras, or a folder of photos.",
    ),
]
AlignOption = Annotated[
    Literal["auto", "none", "centres", "poses", "icp"],
    typer.Option("--align", help="auto: by camera centres where cameras are given, else as it is."),
]
CamerasOption = Annotated[
    Path | None, typer.Option("--cameras", help="Cameras in the mesh's frame, of any tool.")
]
TrueCamerasOption = Annotated[
    Path | None,
    typer.Option("--true-cameras", help="True cameras; with them `mesh` counts what they see."),
]
TransformOption = Annotated[
    Path | None, typer.Option("--transform", help="4×4 similarity, mesh → truth (text or npy).")
]
UnitOption = Annotated[str | None, typer.Option("--unit", help="Unit of the ground truth.")]
ScanOption = Annotated[int | None, typer.Option("--scan", min=1, help="dtu: number of the scan.")]
SceneOption = Annotated[
    str | None, typer.Option("--scene", help="tanks_and_temples: scene, for its threshold.")
]
TauOption = Annotated[
    float | None, typer.Option("--tau", min=0, help="tanks_and_temples: threshold.")
]
CropOption = Annotated[
    Path | None, typer.Option("--crop", help="tanks_and_temples: crop volume (JSON).")
]
RefineOption = Annotated[
    bool, typer.Option("--refine/--no-refine", help="tanks_and_temples: the three ICP steps.")
]
SamplesOption = Annotated[
    int, typer.Option("--samples", min=100, help="mobilebrick: points a surface.")
]
ThresholdOption = Annotated[
    float,
    typer.Option("--threshold", min=1e-6, max=1.0, help="mesh: share of the object's radius."),
]
MasksOption = Annotated[
    Path | None, typer.Option("--masks", help="images: folder of masks, white where it counts.")
]
JsonOption = Annotated[
    Path | None, typer.Option("--out", "-o", help="Also write the result as JSON to this file.")
]
SourcesArgument = Annotated[
    list[str],
    typer.Argument(
        help="Output folders of runs or batches, result files of `porf evaluate`, or published "
        "figures: published:dtu, published:dtu65, published:mobilebrick.",
        metavar="RUN…",
    ),
]
FormOption = Annotated[
    Literal["table", "markdown", "csv", "json"], typer.Option("--format", help="Form of the table.")
]


def evaluate(
    prediction: Annotated[
        Path, typer.Argument(help="Mesh, cloud, cameras or folder of renders.", metavar="MESH")
    ],
    protocol: ProtocolOption,
    ground_truth: TruthOption,
    align: AlignOption = "auto",
    cameras: CamerasOption = None,
    true_cameras: TrueCamerasOption = None,
    transform: TransformOption = None,
    unit: UnitOption = None,
    scan: ScanOption = None,
    scene: SceneOption = None,
    tau: TauOption = None,
    crop: CropOption = None,
    refine: RefineOption = True,
    samples: SamplesOption = 100_000,
    threshold: ThresholdOption = 0.01,
    masks: MasksOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of random samples.")] = 0,
    out: JsonOption = None,
) -> None:
    """Measure any mesh, cameras or renders against ground truth by a named protocol."""
    from pipeline.metrics import external  # noqa: PLC0415  (loads numba and trimesh)

    def given(path: Path | None) -> Path | None:
        return absolute(path) if path is not None else None

    question = external.Question(
        protocol=protocol,
        prediction=absolute(prediction),
        ground_truth=absolute(ground_truth),
        align=align,
        cameras=given(cameras),
        true_cameras=given(true_cameras),
        transform=given(transform),
        unit=unit,
        scan=scan,
        scene=scene,
        tau=tau,
        crop=given(crop),
        refine=refine,
        samples=samples,
        threshold=threshold,
        masks=given(masks),
        seed=seed,
    )
    answer = external.evaluate(question)
    print_answer(answer, protocol)
    if out is not None:
        target = absolute(out)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_json(target, answer.as_json(question))
        except OSError as error:
            raise disk_error(error, target) from error
        console.print(f"written to [bold]{escape(str(target))}[/]")


def print_answer(answer: "Answer", protocol: str) -> None:
    """Each measure with its unit and meaning, then how the alignment went."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    table.add_column(protocol)
    table.add_column("value", justify="right")
    table.add_column("unit")
    table.add_column("meaning", style="dim", overflow="fold")
    for metric in answer.metrics:
        cells = (metric.name, number(metric.value), metric.unit, metric.meaning)
        table.add_row(*(escape(cell) for cell in cells))
    console.print(table)
    if answer.metrics:
        console.print(f"[dim]{escape(answer.metrics[0].protocol)}[/]")
    alignment = answer.alignment
    told = f"alignment: {alignment.method}"
    if alignment.residual_rmse is not None:
        told += f", scale {alignment.similarity.scale:.6g}, residual {alignment.residual_rmse:.4g}"
        told += f" (RMSE over {alignment.pairs})"
    console.print(told)
    for note in answer.notes:
        console.print(f"[yellow]{escape(note)}[/]")


def compare(
    sources: SourcesArgument,
    form: FormOption = "table",
    everything: Annotated[
        bool, typer.Option("--all", help="All measures, not only the headline ones.")
    ] = False,
) -> None:
    """Tabulate runs, results of `porf evaluate`, and published figures."""
    from pipeline.metrics.compare import compare_sources  # noqa: PLC0415

    comparison = compare_sources(sources, everything)
    if form == "json":
        typer.echo(json.dumps(comparison.as_json(), indent=1, ensure_ascii=False))
    elif form in ("markdown", "csv"):
        typer.echo(comparison.as_markdown() if form == "markdown" else comparison.as_csv())
    else:
        _print_comparison(comparison)


def _print_comparison(comparison: "Comparison") -> None:
    """Sources as columns where there are few, so that long names of measures stay readable."""
    table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="bold")
    table.add_column("measure")
    for row in comparison.rows:
        table.add_column(escape(row.name), justify="right", overflow="fold")
    for column in comparison.columns:
        label = f"{escape(column.label)} [dim]{escape(column.unit)}[/]"
        table.add_row(label, *(number(row.figures.get(column.name)) for row in comparison.rows))
    console.print(table)
    for note in comparison.notes:
        console.print(f"[dim]{escape(note)}[/]")


def number(value: Any) -> str:
    """Four significant digits; a dash for what is not known."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
