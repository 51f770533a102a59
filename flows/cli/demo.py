"""`porf demo`: photos of an object of our own making, reconstructed and measured."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli import console
from flows.cli.arguments import PresetOption, SetOption, absolute
from flows.cli.run import continue_command, execute
from flows.console import make_reporter
from flows.request import RunRequest
from flows.settings import resolve
from pipeline.store.digest import digest, sha256_file
from pipeline.store.files import remove


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for photos and results.")] = Path(
        "demo"
    ),
    preset: PresetOption = "demo",
    overrides: SetOption = None,
) -> None:
    """Render photos of a known object, reconstruct it from the JPEGs alone, and measure."""
    settings = resolve(preset, None, overrides or [])
    folder = absolute(out)
    truth = make_photos(folder)
    request = RunRequest(
        photos=folder / "photos",
        out=folder / "results",
        preset=preset,
        settings=settings.model_dump(mode="json"),
        external=truth,
    )
    retry = continue_command(
        request.photos, request.out, preset, overrides or [], None, request.external
    )
    execute(request, retry)


def make_photos(folder: Path) -> dict[str, Path]:
    """Render the demo photos once; returns the files of the truth by role."""
    stamp = folder / "photos.json"
    if not (stamp.is_file() and _photos_digest(folder) == stamp.read_text().strip()):
        from pipeline.demo import render_demo  # noqa: PLC0415  (slow to import)

        remove(stamp)
        for part in ("photos", "truth"):
            remove(folder / part)
        folder.mkdir(parents=True, exist_ok=True)
        with make_reporter(console) as reporter:
            reporter.stage_starts("photos", ["rendering the demo photos"])
            render_demo(folder, progress=_Bar(reporter))
        stamp.write_text(_photos_digest(folder))
    return {
        "ground_truth": folder / "truth" / "cameras.npz",
        "ground_truth_mesh": folder / "truth" / "mesh_gt.ply",
    }


def _photos_digest(folder: Path) -> str:
    files = [p for part in ("photos", "truth") for p in sorted((folder / part).glob("*"))]
    return digest({p.name: sha256_file(p) for p in files if p.is_file()})


class _Bar:
    """Progress of the renderer on the console."""

    def __init__(self, reporter: object) -> None:
        self._reporter = reporter

    def advance(self, phase: str, done: int, total: int, **figures: float) -> None:
        """See `pipeline.progress.Progress.advance`."""
        self._reporter.advance("photos", phase, done, total, figures)  # type: ignore[attr-defined]

    def note(self, text: str) -> None:
        """See `pipeline.progress.Progress.note`."""
        console.print(text)

    def warn(self, text: str) -> None:
        """See `pipeline.progress.Progress.warn`."""
        console.print(text)
