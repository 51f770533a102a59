"""The few things said first: verdict, key figures, warnings."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pipeline.metrics.labels import LABELS
from pipeline.metrics.table import WHO
from pipeline.report.data import ReportData
from pipeline.report.words import duration, number, plain_name, unit


@dataclass(frozen=True)
class KeyFigure:
    """One large number with a label, its unit, and a few words."""

    label: str
    value: str
    unit: str = ""
    note: str = ""


def headline(data: ReportData) -> list[KeyFigure]:
    """The figures worth a large print, at most eight."""
    figures = [_photos(data), *_measured(data), _heldout(data), _psnr(data), _mesh(data)]
    figures.append(_time(data))
    return [figure for figure in figures if figure][:8]


def _photos(data: ReportData) -> KeyFigure | None:
    if not data.photos:
        return None
    return KeyFigure("Photos registered", f"{len(data.registered)} of {len(data.photos)}")


def _measured(data: ReportData) -> list[KeyFigure]:
    """What ground truth says, where it was given; else of the surface what masks say."""
    found = []
    values = {m["name"]: m["value"] for m in data.metrics.get("metrics", [])}
    rotation, before = values.get("rotation_mean_refined"), values.get("rotation_mean_sfm")
    if rotation is not None:
        note = "mean, against the true cameras"
        if before is not None:
            note += f"; {number(float(before))}° before refinement"
        found.append(KeyFigure("Rotation error", number(float(rotation)), "°", note))
    chamfer = values.get("chamfer_of_radius")
    if chamfer is not None:
        note = "of the object's radius, against the true surface"
        found.append(KeyFigure("Surface error (Chamfer)", number(float(chamfer)), "%", note))
    elif values.get("silhouette_iou") is not None:
        iou, worst = (number(float(values[f"silhouette_iou{end}"])) for end in ("", "_worst"))
        note = f"mesh against masks, in common of both; {worst}% at worst"
        found.append(KeyFigure("Silhouettes", iou, "%", note))
    f_score = values.get("f_score")
    if f_score is not None:
        found.append(KeyFigure("Surface F-score", number(float(f_score)), "%"))
    return found


def _heldout(data: ReportData) -> KeyFigure | None:
    figures = data.train.get("figures", {})
    before = figures.get("heldout_epipolar_before_px")
    after = figures.get("heldout_epipolar_after_px")
    if after is None:
        return None
    note = "" if before is None else f"{number(float(before))} px before refinement"
    return KeyFigure("Held-out epipolar error", number(float(after)), "px", note)


def _psnr(data: ReportData) -> KeyFigure | None:
    value = data.train.get("figures", {}).get("psnr_heldout_db")
    if value is None:
        return None
    return KeyFigure("Held-out PSNR", f"{value:.1f}", "dB", "of pixels kept out of training")


def _mesh(data: ReportData) -> KeyFigure | None:
    if not data.mesh_facts.get("faces"):
        return None
    pieces = data.mesh_facts.get("pieces", 1)
    note = "in one piece" if pieces == 1 else f"in {pieces} pieces"
    return KeyFigure("Mesh", number(data.mesh_facts["faces"]), "faces", note)


def _time(data: ReportData) -> KeyFigure | None:
    if not data.stages:
        return None
    total = sum(stage.wall_s for stage in data.stages)
    longest = max(data.stages, key=lambda stage: stage.wall_s)
    return KeyFigure(
        "Computing time",
        duration(total),
        note=f"of which {longest.name} {duration(longest.wall_s)}",
    )


def subtitle(data: ReportData) -> str:
    """One line under the title."""
    parts = []
    if data.photos:
        parts.append(f"{len(data.photos)} photos")
    started = [stage.started_at for stage in data.stages if stage.started_at]
    if started:
        parts.append(f"begun {min(started)[:16].replace('T', ' ')} UTC")
    return " · ".join(parts)


def warnings(data: ReportData) -> list[dict[str, str]]:
    """Everything a stage wants looked at, without repetition."""
    found: list[dict[str, str]] = []
    for stage in data.stages:
        if stage.status != "ok":
            found += [{"stage": stage.name, "text": text} for text in stage.reasons]
    said = {item["text"] for item in found}
    found += [{"stage": "ingest", "text": t} for t in data.ingest_warnings if t not in said]
    return found


@dataclass(frozen=True)
class MetricRow:
    """One measure, or one measure before and after refinement.

    Attributes:
        name: in words.
        before: of the cameras from structure from motion; empty if the measure has no such side.
        value: with its unit.
        meaning: a sentence.
        protocol: how it was taken.
    """

    name: str
    before: str
    value: str
    meaning: str
    protocol: str


def metric_rows(data: ReportData) -> list[MetricRow]:
    """The table of measures; those of both sets of cameras share a row."""
    metrics = {metric["name"]: metric for metric in data.metrics.get("metrics", [])}
    rows = []
    for name, metric in metrics.items():
        stem, _, who = name.rpartition("_")
        if who == "sfm" and f"{stem}_refined" in metrics:
            continue
        paired = who == "refined" and f"{stem}_sfm" in metrics
        meaning = metric.get("meaning", "")
        if paired:
            meaning = meaning.replace(f" of the cameras {WHO['refined']}", "")
        rows.append(
            MetricRow(
                name=_called(stem if paired else name),
                before=with_unit(metrics[f"{stem}_sfm"]) if paired else "",
                value=with_unit(metric),
                meaning=meaning,
                protocol=metric.get("protocol", ""),
            )
        )
    return rows


def metric_groups(data: ReportData) -> list[tuple[str, list[MetricRow]]]:
    """The measures in order, those that follow each other and were taken alike under one text."""
    return [(how, list(rows)) for how, rows in groupby(metric_rows(data), lambda r: r.protocol)]


def _called(name: str) -> str:
    """A measure's name in words, its first letter a capital."""
    text = LABELS.get(name) or plain_name(name)
    return text[:1].upper() + text[1:]


def with_unit(metric: dict[str, Any]) -> str:
    """A measure's value and unit."""
    value, name = metric["value"], unit(metric.get("unit"))
    if value is None:
        return "–"
    short = name.split(" ")[0]
    gap = "" if short in ("", "°", "%") else "\u00a0"
    return f"{number(value)}{gap}{short if short in ('°', '%') else name}"
