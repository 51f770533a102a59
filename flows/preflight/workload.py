"""How much there is to do: number and size of the photos, from their headers alone."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.formats.case_files import IMAGE_FOLDERS


@dataclass(frozen=True)
class Workload:
    """The photos of a run.

    Attributes:
        views: photos that can be read.
        megapixels: of the median photo as it is stored.
        longer_side_px: of the median photo.
        largest_megapixels: of the largest photo.
    """

    views: int
    megapixels: float
    longer_side_px: int
    largest_megapixels: float

    def bounded(self, max_side_px: int) -> float:
        """Megapixels of the median photo after it was shrunk to this longer side."""
        return self.megapixels * min(1.0, max_side_px / max(self.longer_side_px, 1)) ** 2


def read_workload(paths: Mapping[str, Path]) -> Workload | None:
    """What the user's files amount to; None where there are no photos to look at."""
    sizes = _sizes(paths)
    if not sizes:
        return None
    megapixels = [width * height / 1e6 for width, height in sizes]
    return Workload(
        views=len(sizes),
        megapixels=statistics.median(megapixels),
        longer_side_px=int(statistics.median(max(size) for size in sizes)),
        largest_megapixels=max(megapixels),
    )


def _sizes(paths: Mapping[str, Path]) -> list[tuple[int, int]]:
    from PIL import Image  # noqa: PLC0415

    from pipeline.imaging.decode import FORMATS  # noqa: PLC0415  (teaches Pillow HEIC)

    sizes = []
    for path in _files(paths):
        try:
            with Image.open(path, formats=FORMATS) as image:
                sizes.append(image.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue  # the run itself says what is wrong with it
    return sizes


def _files(paths: Mapping[str, Path]) -> list[Path]:
    root = paths.get("photos") or paths.get("case")
    if root is None or not root.is_dir():
        return []
    folder = root
    if "photos" not in paths:
        folder = next((root / n for n in IMAGE_FOLDERS if (root / n).is_dir()), root)
    return sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
