"""A short version of the report, for places that show Markdown."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.report import summary
from pipeline.report.advice import advice
from pipeline.report.data import ReportData, gather, run_title
from pipeline.report.pictures import png_uri, thumbnail
from pipeline.report.words import duration, number

PICTURES = (
    ("mesh", "The surface in the colours of the photos", 420),
    ("mesh_sides_clay", "Its shape from eight sides", 640),
    ("views", "Photos, renderings, normals, differences", 640),
)
PALETTE = 96
"""Colours of the embedded pictures: they are thumbnails, and the text must stay small."""


def compact_markdown(inputs: Mapping[str, Path], manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """The report in short: key figures, warnings, a few small pictures, the stages.

    Args:
        inputs: artifact folders by stage name; pictures are taken from the one of `report`.
        manifests: the stages' manifests by name.
    """
    data = gather(inputs, manifests, run_title(manifests))
    blocks = [f"# {_escaped(data.title)}", summary.subtitle(data), summary.verdict(data)]
    blocks.append(_figures(data))
    blocks += [_list("Look at this first", [_warning(w) for w in summary.warnings(data)])]
    blocks += [_list("What would help", [_prose(text) for text in advice(data)])]
    if "report" in inputs:
        blocks += _pictures(inputs["report"] / "pictures")
    blocks.append(_stages(data))
    return "\n\n".join(block for block in blocks if block) + "\n"


def metric_rows(inputs: Mapping[str, Path]) -> list[dict[str, str]]:
    """The table of measures as plain rows."""
    rows = summary.metric_rows(gather({"evaluate": inputs["evaluate"]}, {}, ""))
    return [
        {
            "measure": row.name,
            "before refinement": row.before,
            "result": row.value,
            "meaning": row.meaning,
            "protocol": row.protocol,
        }
        for row in rows
    ]


def _figures(data: ReportData) -> str:
    rows = [
        f"| {figure.label} | {_value(figure)} | {_escaped(figure.note)} |"
        for figure in summary.headline(data)
    ]
    return "\n".join(["| | | |", "|---|---|---|", *rows]) if rows else ""


def _value(figure: summary.KeyFigure) -> str:
    gap = "" if figure.unit in ("", "°", "%") else " "
    return f"**{figure.value}{gap}{figure.unit}**"


def _warning(warning: dict[str, str]) -> str:
    return f"**{warning['stage']}**: {_prose(warning['text'])}"


def _list(heading: str, items: list[str]) -> str:
    if not items:
        return ""
    return "\n".join([f"### {heading}", "", *(f"- {item}" for item in items)])


def _pictures(folder: Path) -> list[str]:
    found = []
    for name, caption, width in PICTURES:
        path = folder / f"{name}.png"
        if path.is_file():
            found.append(f"![{caption}]({png_uri(thumbnail(path, width), PALETTE)})")
    return found


def _stages(data: ReportData) -> str:
    if not data.stages:
        return ""
    rows = [f"| {s.name} | {s.status} | {duration(s.wall_s)} |" for s in data.stages]
    total = duration(sum(stage.wall_s for stage in data.stages))
    return "\n".join(
        [
            f"### {number(len(data.stages))} stages, {total}",
            "",
            "| Stage | Verdict | Time |",
            "|---|---|---|",
            *rows,
        ]
    )


def _prose(text: str) -> str:
    """Escaped text in which `words` between backticks stay code."""
    parts = re.split(r"`([^`]+)`", text)
    return "".join(f"`{p}`" if i % 2 else _escaped(p) for i, p in enumerate(parts))


def _escaped(text: str) -> str:
    """Text in which nothing is taken for Markdown or HTML."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]()#|!$~])", r"\\\1", text).replace("\n", " ")
