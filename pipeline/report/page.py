"""The HTML page, from data, charts and pictures."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pipeline.metrics.renders import ERROR_FULL_SCALE
from pipeline.report.advice import advice
from pipeline.report.charts import Chart
from pipeline.report.data import ReportData, StageRecord
from pipeline.report.facts import mesh_facts, removals, sfm_facts
from pipeline.report.summary import headline, metric_groups, subtitle, verdict, warnings
from pipeline.report.words import duration, memory, number, told


@dataclass
class PageParts:
    """What was drawn for the page; every picture is a `data:` address."""

    hero: str | None = None
    sides: list[dict[str, str]] = field(default_factory=list)
    error_sides: list[dict[str, str]] = field(default_factory=list)
    error_scale: Chart | None = None
    photos: list[dict[str, Any]] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    camera_charts: list[Chart] = field(default_factory=list)
    training_charts: list[Chart] = field(default_factory=list)
    scene3d: dict[str, Any] = field(default_factory=dict)


def render_page(data: ReportData, parts: PageParts) -> str:
    """The whole page as one string; nothing in it is loaded from elsewhere."""
    context: dict[str, Any] = {
        "title": data.title,
        "subtitle": subtitle(data),
        "verdict": verdict(data),
        "css": Markup(_resource("style.css")),
        "viewer_js": Markup(_resource("viewer.js")),
        "hero": parts.hero,
        "tiles": headline(data),
        "warnings": warnings(data),
        "advice": advice(data),
        "scene_data": _embedded_json(parts.scene3d) if _worth_a_view(parts.scene3d) else None,
        "sides": parts.sides,
        "error_sides": parts.error_sides,
        "error_scale": Markup(parts.error_scale.svg) if parts.error_scale else None,
        "mesh_rows": mesh_facts(data),
        "removals": removals(data),
        "metrics": metric_groups(data),
        "metric_notes": [str(note) for note in data.metrics.get("notes", [])],
        "views": parts.views,
        "error_levels": ERROR_FULL_SCALE,
        "camera_text": camera_text(data.train),
        "camera_charts": _charts(parts.camera_charts),
        "sfm_rows": sfm_facts(data),
        "calibration": data.sfm.get("calibration", {}).get("rationale"),
        "training_charts": _charts(parts.training_charts),
        "photos": parts.photos,
        "photo_text": _photo_text(data),
        "stages": [_stage_row(stage) for stage in data.stages],
        "libraries": _shared_libraries(data.stages),
        "unit_text": _unit_text(data),
    }
    context["sections"] = [
        (anchor, name)
        for anchor, name, present in (
            ("model", "Model", context["scene_data"]),
            ("metrics", "Measures", context["metrics"]),
            ("views", "Views", context["views"]),
            ("cameras", "Cameras", context["camera_charts"] or context["sfm_rows"]),
            ("training", "Training", context["training_charts"]),
            ("photos", "Photos", context["photos"]),
            ("stages", "How it was made", context["stages"]),
        )
        if present
    ]
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["code"] = _with_code
    return environment.from_string(_resource("report.html.j2")).render(context)


def _resource(name: str) -> str:
    return (resources.files("pipeline.report") / "templates" / name).read_text(encoding="utf-8")


def _with_code(text: str) -> Markup:
    """Escaped text in which `words` between backticks are set as code."""
    parts = re.split(r"`([^`]+)`", text)
    set_apart = [Markup("<code>{}</code>").format(p) if i % 2 else p for i, p in enumerate(parts)]
    return Markup("").join(set_apart)


def _embedded_json(value: Any) -> Markup:
    """JSON that cannot end its script element, whatever the file names say."""
    text = json.dumps(value, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _worth_a_view(scene3d: dict[str, Any]) -> bool:
    return any(scene3d.get(part) for part in ("mesh", "points", "before", "after"))


def _charts(charts: Sequence[Chart]) -> list[dict[str, Any]]:
    # the markup is matplotlib's, which escapes text
    return [{"title": chart.title, "svg": Markup(chart.svg)} for chart in charts]


_CHOSEN = {
    "input": "the cameras that training was given, so these were kept.",
    "adjusted": "the cameras adjusted to the other matches, so these were taken.",
    "calibrated": "cameras of another focal length and principal point, so these were taken.",
    "calibrated_radial": "cameras of another focal length, principal point and radial distortion, "
    "so these were taken.",
    "epipolar": "the cameras refined on matches alone, so these were taken.",
    "joint": "the cameras refined jointly with the surface, so these were taken.",
}
"""What held-out matches agreed best with, by the accepted candidate's name."""


def camera_text(train: dict[str, Any]) -> str | None:
    """Which cameras training took, and why, from what it wrote; None where it tells nothing."""
    figures = train.get("figures", {})
    accepted = figures.get("accepted_cameras")
    if accepted not in _CHOSEN:
        return None
    if accepted != "input" and figures.get("heldout_matches") == 0:
        return "No match was held out to judge cameras: these are what training ended with."
    if accepted == "input" and len(train.get("candidates", [])) == 1:
        return "The cameras that training was given were kept: no others were tried."
    return f"Held-out matches agreed best with {_CHOSEN[accepted]}"


def _photo_text(data: ReportData) -> str:
    lost = len(data.photos) - len(data.registered)
    if lost == 0:
        return f"All {len(data.photos)} photos are registered."
    known = f"{len(data.registered)} of {len(data.photos)} photos are registered"
    return f"{known}; the others are framed."


def _stage_row(stage: StageRecord) -> dict[str, Any]:
    return {
        "name": stage.name,
        "status": stage.status,
        "result": _figures_in_short(stage.figures),
        "started": stage.started_at[:19].replace("T", " "),
        "time": duration(stage.wall_s),
        "memory": memory(stage.peak_memory_mb),
        "version": stage.version,
        "seed": stage.seed,
        "options": _flat({**stage.options, **stage.settings}),
        "libraries": ", ".join(f"{name} {version}" for name, version in stage.libraries.items()),
    }


def _shared_libraries(stages: Sequence[StageRecord]) -> str | None:
    """The versions that all stages ran with; None where they differ."""
    told = {_stage_row(stage)["libraries"] for stage in stages}
    return told.pop() if len(told) == 1 else None


def _figures_in_short(figures: dict[str, Any], limit: int = 5) -> str:
    scalars = {k: v for k, v in figures.items() if isinstance(v, str | int | float | bool)}
    shown = [told(name, value) for name, value in scalars.items()]
    return ", ".join(shown[:limit])


def _flat(options: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested options as dotted names."""
    pairs: list[tuple[str, str]] = []
    for name, value in options.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{name}.")
        else:
            pairs.append((prefix + name, number(value)))
    return pairs


def _unit_text(data: ReportData) -> str:
    if data.unit == "unknown":
        return "scene units (photos alone do not tell the scale)"
    return data.unit
