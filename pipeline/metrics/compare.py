"""Runs, results of single evaluations, and published figures in one table."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import InputError
from pipeline.formats.json_text import parse_json
from pipeline.metrics.labels import LABELS
from pipeline.metrics.published import PREFIX, published_rows
from pipeline.text import visible

HEADLINES = (
    "rotation_mean",
    "rotation_mean_before",
    "rotation_self_aligned",
    "translation_mean_mm",
    "translation_of_span",
    "chamfer_of_radius",
    "f_score",
    "normal_consistency",
    "dtu_overall",
    "dtu_accuracy",
    "dtu_completeness",
    "f1_2.5mm",
    "f1_5mm",
    "chamfer_sum",
    "tanks_f_score",
    "tanks_precision",
    "tanks_recall",
    "heldout_epipolar_median_sfm",
    "heldout_epipolar_median_refined",
    "reprojection_median_refined",
    "psnr_heldout",
    "psnr_mean",
    "ssim_mean",
    "lpips_mean",
    "sparse_distance_of_radius",
    "coverage",
)
"""Measures worth a line, in reading order."""

_LABELS = {
    **LABELS,
    "rotation_mean_before": "… before refinement",
    "tanks_precision": "… precision",
    "tanks_recall": "… recall",
    "heldout_epipolar_median_sfm": "held-out epipolar error before, median",
    "heldout_epipolar_median_refined": "held-out epipolar error after, median",
    "reprojection_median_refined": LABELS["reprojection_median"],
}

_SAME = {
    "rotation_mean_refined": "rotation_mean",
    "rotation_mean_given": "rotation_mean",
    "rotation_mean_sfm": "rotation_mean_before",
    "rotation_self_aligned_refined": "rotation_self_aligned",
    "rotation_self_aligned_given": "rotation_self_aligned",
    "translation_of_span_refined": "translation_of_span",
    "translation_of_span_given": "translation_of_span",
}
"""Names under which one measure comes from different places."""

_UNITS = {"rotation_mean": "deg", "translation_mean_mm": "mm", "dtu_overall": "mm", "f1_2.5mm": "%"}
"""Units of the published figures."""

BATCH_RECORD = "batch.json"
_MILLIMETRES = {"mm": 1.0, "m": 1000.0}


@dataclass(frozen=True)
class Column:
    """One measure."""

    name: str
    label: str
    unit: str


@dataclass(frozen=True)
class Row:
    """One source: its name and its figures by measure."""

    name: str
    figures: dict[str, float]
    units: dict[str, str]


@dataclass
class Comparison:
    """The table."""

    columns: list[Column]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> list[dict[str, Any]]:
        """One object a source."""
        units = {column.name: column.unit for column in self.columns}
        return [
            {
                "name": row.name,
                "figures": {
                    name: {"value": value, "unit": units[name]}
                    for name, value in row.figures.items()
                    if name in units
                },
            }
            for row in self.rows
        ]

    def as_markdown(self) -> str:
        """Sources as rows."""
        lines = [
            "| | " + " | ".join(_titled(column) for column in self.columns) + " |",
            "|---|" + "---:|" * len(self.columns),
        ]  # fmt: skip
        for row in self.rows:
            name = row.name.replace("|", "\\|")
            lines.append(f"| {name} | " + " | ".join(self._cells(row)) + " |")
        return "\n".join(lines)

    def as_csv(self) -> str:
        """Sources as rows; full precision."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["source", *(f"{c.name} [{c.unit}]" for c in self.columns)])
        for row in self.rows:
            writer.writerow([row.name, *(row.figures.get(c.name, "") for c in self.columns)])
        return text.getvalue().rstrip("\r\n")

    def _cells(self, row: Row) -> list[str]:
        found = [row.figures.get(column.name) for column in self.columns]
        return ["–" if value is None else f"{value:.4g}" for value in found]


def compare_sources(sources: Sequence[str], everything: bool = False) -> Comparison:
    """Read each source and line the measures up.

    Args:
        sources: output folders of runs or batches, result files, or `published:<set>`. After a
            batch's runs come their means, one for each preset that several runs started from.
        everything: all measures, not only the headline ones.

    Raises:
        InputError: a source that is none of these, without figures, or two measures of one name
            in different units.
    """
    rows = [row for source in sources for row in _rows(source)]
    named = _distinct_names(rows)
    units: dict[str, str] = {}
    for row in named:
        for name, unit in row.units.items():
            differs = units.setdefault(name, unit) != unit
            if differs and (everything or name in HEADLINES):
                raise InputError(
                    f"{row.name} gives {name} in {unit or 'no unit'}, another source in "
                    f"{units[name] or 'no unit'}: they cannot share a column",
                    hint="evaluate both with one --unit",
                )
    shown = [name for name in HEADLINES if name in units]
    if everything:
        shown += [name for name in units if name not in HEADLINES]
    if not shown:
        raise InputError("the sources have no measure to tabulate")
    columns = [Column(n, _LABELS.get(n, n.replace("_", " ")), units[n]) for n in shown]
    notes = []
    if any(source.startswith(PREFIX) for source in sources):
        notes.append(
            "published: Bian et al., ICLR 2024; surfaces from a second training with fixed "
            "cameras, culled by dilated masks on DTU"
        )
    return Comparison(columns, named, notes)


def _titled(column: Column) -> str:
    return f"{column.label} ({column.unit})" if column.unit else column.label


def _rows(source: str) -> list[Row]:
    if source.startswith(PREFIX):
        return [
            Row(f"{row.name} (published)", row.figures, {n: _UNITS[n] for n in row.figures})
            for row in published_rows(source.removeprefix(PREFIX))
        ]
    path = Path(source).expanduser()
    if (path / BATCH_RECORD).is_file():
        return _rows_of_batch(path / BATCH_RECORD)
    file = path / "metrics.json" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{source} is neither a run with a metrics.json, a batch, nor a result file",
            hint="give output folders of finished runs or batches, files of `porf evaluate -o`, or "
            f"{PREFIX}dtu",
        )
    try:
        metrics = parse_json(file.read_bytes())["metrics"]
        figures = {m["name"]: float(m["value"]) for m in metrics if m["value"] is not None}
        units = {m["name"]: str(m["unit"]) for m in metrics}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not a file of measures ({error})") from error
    return [_unified(path.resolve().name if path.is_dir() else path.stem, figures, units)]


def _rows_of_batch(file: Path) -> list[Row]:
    rows: list[Row] = []
    presets: dict[str, list[Row]] = {}
    try:
        for run in parse_json(file.read_bytes())["runs"]:
            known = {n: f for n, f in run["figures"].items() if f["value"] is not None}
            figures = {name: float(figure["value"]) for name, figure in known.items()}
            units = {name: str(figure["unit"]) for name, figure in known.items()}
            if figures:
                rows.append(_unified(visible(run["name"]), figures, units))
                presets.setdefault(visible(run["preset"]), []).append(rows[-1])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is not the record of a batch ({error})") from error
    if not rows:
        raise InputError(f"no run of {file.parent} has measures yet")
    means = [_mean(f"mean of {preset}", runs) for preset, runs in presets.items() if len(runs) > 1]
    return rows + means


def _mean(name: str, rows: list[Row]) -> Row:
    """Means of what every one of these has; a mean of some would flatter or blame."""
    shared = set.intersection(*(set(row.figures) for row in rows))
    units = {n: rows[0].units[n] for n in shared if len({row.units[n] for row in rows}) == 1}
    means = {n: sum(row.figures[n] for row in rows) / len(rows) for n in units}
    return Row(f"{name} ({len(rows)} runs)", means, units)


def _unified(name: str, figures: dict[str, float], units: dict[str, str]) -> Row:
    """Measures under their common names; centre errors in mm where their unit is known."""
    for who in ("refined", "given"):
        factor = _MILLIMETRES.get(units.get(f"translation_mean_{who}", ""))
        if factor is not None and f"translation_mean_{who}" in figures:
            figures["translation_mean_mm"] = factor * figures[f"translation_mean_{who}"]
            units["translation_mean_mm"] = "mm"
    return Row(
        name,
        {_SAME.get(n, n): value for n, value in figures.items()},
        {_SAME.get(n, n): unit for n, unit in units.items() if n in figures},
    )


def _distinct_names(rows: list[Row]) -> list[Row]:
    names = [row.name for row in rows]
    return [
        Row(f"{row.name} ({names[: i + 1].count(row.name)})", row.figures, row.units)
        if names.count(row.name) > 1
        else row
        for i, row in enumerate(rows)
    ]
