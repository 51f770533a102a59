"""Compose a picture of the README from a finished run: a photo, the coloured mesh, the bare mesh.

python benchmarks/result_picture.py demo/results
"""

import argparse
from pathlib import Path

from PIL import Image

from flows.case_folder import CaseFolder

REPOSITORY = Path(__file__).resolve().parent.parent
HEIGHT_PX = 420
GAP_PX = 12


def main() -> None:
    """Write `docs/images/NAME.png`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--photo", type=int, default=4, help="index of the photo shown")
    parser.add_argument("--side", type=int, default=1, help="which of the eight sides, from 0")
    parser.add_argument("--name", default="demo", help="of the picture")
    arguments = parser.parse_args()
    folder = CaseFolder(arguments.results)
    pictures = folder.store.artifact("report", folder.load_record().keys["report"]) / "pictures"
    photos = sorted((folder.root / "image").glob("*.png"))
    parts = [Image.open(photos[arguments.photo])]
    sheets = ("mesh_sides.png", "mesh_sides_clay.png")
    parts += [side(pictures / sheet, arguments.side) for sheet in sheets]
    target = REPOSITORY / "docs" / "images" / f"{arguments.name}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    side_by_side([part.convert("RGBA") for part in parts]).save(target, optimize=True)
    print(f"wrote {target}")


def side(sheet: Path, index: int) -> Image.Image:
    """One of the eight sides (four columns, two rows) of a report's sheet."""
    image = Image.open(sheet)
    width, height = image.width // 4, image.height // 2
    row, column = divmod(index, 4)
    left, top = column * width, row * height
    return image.crop((left, top, left + width, top + height))


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """Images at one height on white, in a row."""
    scaled = [i.resize((round(i.width * HEIGHT_PX / i.height), HEIGHT_PX)) for i in images]
    width = sum(i.width for i in scaled) + GAP_PX * (len(scaled) - 1)
    canvas = Image.new("RGB", (width, HEIGHT_PX), "white")
    left = 0
    for image in scaled:
        canvas.paste(image, (left, 0), image)
        left += image.width + GAP_PX
    return canvas


if __name__ == "__main__":
    main()
