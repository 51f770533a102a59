"""Pictures as bytes: encoding, contact sheets, files."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

Rgb = tuple[int, int, int]


def thumbnail(source: Path | Image.Image, width: int, height: int | None = None) -> Image.Image:
    """A copy at most `width` × `height` pixels large, never enlarged."""
    image = Image.open(source) if isinstance(source, Path) else source
    with image:
        image.draft("RGB", (width * 2, (height or width) * 2))  # JPEG decodes small at once
        small = image.convert("RGBA" if "A" in image.getbands() else "RGB")
        small.thumbnail((width, height or 10 * width), Image.Resampling.LANCZOS)
        return small


def trimmed(image: Image.Image, margin_px: int = 8) -> Image.Image:
    """The image without its fully transparent border, but for a margin."""
    box = image.getchannel("A").getbbox()
    if box is None:
        return image
    left, top, right, bottom = box
    return image.crop(
        (
            max(0, left - margin_px),
            max(0, top - margin_px),
            min(image.width, right + margin_px),
            min(image.height, bottom + margin_px),
        )
    )


def webp_uri(image: Image.Image, quality: int = 80) -> str:
    """`data:` address of the image as WebP."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def png_uri(image: Image.Image, colours: int | None = None) -> str:
    """`data:` address of the image as PNG, with a palette of `colours` if given."""
    buffer = io.BytesIO()
    if colours:
        image = on_background(image).quantize(colours)
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def on_background(image: Image.Image, rgb: Rgb = (255, 255, 255)) -> Image.Image:
    """The image without transparency."""
    if "A" not in image.getbands():
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*rgb, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


@dataclass(frozen=True)
class Tile:
    """One picture of a contact sheet; `image` None draws an empty frame."""

    image: Image.Image | None
    caption: str
    frame: Rgb | None = None


def contact_sheet(
    tiles: Sequence[Tile], columns: int, cell: tuple[int, int], caption_px: int = 18
) -> Image.Image:
    """Tiles in rows on white, each fitted into a cell (width, height) over its caption."""
    gap, border = 8, 3
    width, height = cell
    rows = max(1, -(-len(tiles) // columns))
    step_x, step_y = width + gap, height + caption_px + gap
    sheet = Image.new("RGB", (columns * step_x + gap, rows * step_y + gap), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=caption_px * 0.68)
    for number, tile in enumerate(tiles):
        x = gap + number % columns * step_x
        y = gap + number // columns * step_y
        if tile.image is None:
            draw.rectangle([x, y, x + width - 1, y + height - 1], fill=(240, 240, 240))
        else:
            fitted = ImageOps.contain(on_background(tile.image), cell)
            corner = (x + (width - fitted.width) // 2, y + (height - fitted.height) // 2)
            sheet.paste(fitted, corner)
        if tile.frame:
            draw.rectangle([x, y, x + width - 1, y + height - 1], outline=tile.frame, width=border)
        caption = _shortened(tile.caption, draw, font, width)
        draw.text((x + 2, y + height + 1), caption, fill=(60, 60, 60), font=font)
    return sheet


def _shortened(
    text: str,
    draw: ImageDraw.ImageDraw,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width: int,
) -> str:
    if draw.textlength(text, font=font) <= width:
        return text
    while text and draw.textlength(text + "…", font=font) > width:
        text = text[:-1]
    return text + "…"


@dataclass
class PictureFolder:
    """Collects the report's pictures as PNG files.

    Attributes:
        folder: where; created on demand.
        names: files written so far.
    """

    folder: Path
    names: list[str] = field(default_factory=list)

    def save(self, name: str, image: Image.Image) -> None:
        """Write `name`.png."""
        self._add(f"{name}.png")
        image.save(self.folder / f"{name}.png", optimize=False)

    def save_bytes(self, name: str, content: bytes) -> None:
        """Write an encoded PNG as `name`.png."""
        self._add(f"{name}.png")
        (self.folder / f"{name}.png").write_bytes(content)

    def _add(self, name: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.names.append(name)
