"""`index.html`: every run of a batch with a picture and a link to its report."""

import os
from importlib import resources
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined

from flows.batch.record import BatchRecord, RunResult
from flows.batch.table import header, rows, summary
from flows.case_folder import CaseFolder
from pipeline.store.files import write_text
from pipeline.text import visible

PAGE = "index.html"
THUMBNAILS = ".batch/thumbnails"
_WIDTH_PX = 240


def write_page(out: Path, record: BatchRecord) -> None:
    """Replace the page; it loads nothing but the thumbnails beside it."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters["visible"] = visible
    source = resources.files("flows.batch") / "templates" / "index.html.j2"
    page = environment.from_string(source.read_text(encoding="utf-8")).render(
        title=visible(Path(record.source).name),
        summary=summary(record.runs),
        figures=[title for _, title in header(record.runs)],
        rows=rows(record.runs),
        links={r.name: quote(r.report) for r in record.runs if r.report},
        pictures={r.name: quote(p) for r in record.runs if (p := _picture(out, r))},
    )
    write_text(out / PAGE, page)


def _picture(out: Path, result: RunResult) -> str | None:
    """A small picture of the surface, made once for each report."""
    source = _surface_picture(out / result.name) if result.succeeded else None
    if source is None:
        return None
    target = out / THUMBNAILS / f"{result.name}.webp"
    made_at_ns = source.stat().st_mtime_ns
    if not target.is_file() or target.stat().st_mtime_ns != made_at_ns:
        _shrink(source, target)
        os.utime(target, ns=(made_at_ns, made_at_ns))  # which is newer, a clock that jumped hides
    return f"{THUMBNAILS}/{result.name}.webp"


def _surface_picture(case: Path) -> Path | None:
    folder = CaseFolder(case)
    key = folder.load_record().keys.get("report") if folder.exists() else None
    if key is None:
        return None
    picture = folder.store.artifact("report", key) / "pictures" / "mesh.png"
    return picture if picture.is_file() else None


def _shrink(source: Path, target: Path) -> None:
    from pipeline.report.pictures import on_background, thumbnail  # noqa: PLC0415

    target.parent.mkdir(parents=True, exist_ok=True)
    on_background(thumbnail(source, _WIDTH_PX)).save(target, "WEBP", quality=80)
