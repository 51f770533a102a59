"""What EXIF says about the camera, as far as it can be believed."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from PIL import ExifTags, Image

DIAGONAL_35MM = math.hypot(36.0, 24.0)
MM_PER_UNIT = {2: 25.4, 3: 10.0}
"""FocalPlaneResolutionUnit: inch, centimetre."""

_ORIENTATION = 0x0112
_TAGS = ExifTags.Base


@dataclass(frozen=True)
class PhotoTags:
    """The EXIF fields in use; None where absent or not a finite positive number.

    Attributes:
        make, model: of the camera, without padding.
        orientation: 1 to 8 as EXIF defines it; 1 = upright.
        focal_mm: true focal length.
        focal_35mm: focal length of the same field of view on 36×24 mm.
        focal_plane_px_per_mm: sensor pixels a millimetre, at the size `exif_size_px`.
        exif_size_px: width and height when the photo was taken.
        digital_zoom: ratio, 1 = none.
        gps: latitude and longitude in degrees, altitude in metres or None.
        damaged: there is an EXIF block, and nothing in it can be read.
        impossible_gps: it states a position that is nowhere on earth.
    """

    make: str = ""
    model: str = ""
    orientation: int = 1
    focal_mm: float | None = None
    focal_35mm: float | None = None
    focal_plane_px_per_mm: float | None = None
    exif_size_px: tuple[float, float] | None = None
    digital_zoom: float | None = None
    gps: tuple[float, float, float | None] | None = None
    damaged: bool = False
    impossible_gps: bool = False


def read_tags(image: Image.Image) -> PhotoTags:
    """The tags of an opened image; a damaged EXIF block reads as an empty one."""
    try:
        exif = image.getexif()
        detail = exif.get_ifd(ExifTags.IFD.Exif)
        gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    except Exception:  # the parser raises nearly anything on damaged blocks
        return PhotoTags(damaged=True)
    if not len(exif) and not _is_empty(image.info.get("exif", b"")):
        return PhotoTags(damaged=True)
    position = _position(gps)
    stored = exif.get(_ORIENTATION)
    orientation = stored if isinstance(stored, int) and 1 <= stored <= 8 else 1
    return PhotoTags(
        make=_text(exif.get(_TAGS.Make)),
        model=_text(exif.get(_TAGS.Model)),
        orientation=orientation,
        focal_mm=_positive(detail.get(_TAGS.FocalLength)),
        focal_35mm=_positive(detail.get(_TAGS.FocalLengthIn35mmFilm)),
        focal_plane_px_per_mm=_focal_plane_resolution(detail),
        exif_size_px=_size(detail),
        digital_zoom=_positive(detail.get(_TAGS.DigitalZoomRatio)),
        gps=position if _on_earth(position) else None,
        impossible_gps=position is not None and not _on_earth(position),
    )


def _is_empty(block: bytes) -> bool:
    """Whether an EXIF block says itself that it has no entries (TIFF header, first directory)."""
    if not block:
        return True
    tiff = block.removeprefix(b"Exif\x00\x00")
    order: Literal["big", "little"] = "big" if tiff[:2] == b"MM" else "little"
    start = int.from_bytes(tiff[4:8], order)
    count = tiff[start : start + 2]
    return len(count) == 2 and int.from_bytes(count, order) == 0


def focal_length_px(tags: PhotoTags, width: int, height: int) -> float | None:
    """Focal length in pixels of an image of this size, or None where EXIF is no reliable source.

    The 35 mm equivalent is taken by the diagonal (CIPA DCG-001), else focal length over sensor
    resolution. Refused: cropped photos (aspect changed since the exposure), digital zoom, two
    sources that contradict each other, values that no lens has.
    """
    if tags.digital_zoom is not None and tags.digital_zoom > 1.01:
        return None
    long_px, short_px = max(width, height), min(width, height)
    if tags.exif_size_px is not None:
        taken_long, taken_short = max(tags.exif_size_px), min(tags.exif_size_px)
        if abs(taken_short / taken_long - short_px / long_px) > 0.02:
            return None
    plausible = [f for f in _stated_px(tags, width, height) if _plausible(f, long_px)]
    if not plausible or max(plausible) > 1.25 * min(plausible):
        return None
    return plausible[0]


def disbelieved(tags: PhotoTags, width: int, height: int) -> list[str]:
    """What EXIF states and nobody should believe; it counts as absent."""
    doubts = ["the EXIF block is damaged"] if tags.damaged else []
    stated = _stated_px(tags, width, height)
    if stated and not any(_plausible(focal, max(width, height)) for focal in stated):
        doubts.append("EXIF states a focal length that no lens has")
    if tags.impossible_gps:
        doubts.append("EXIF states a GPS position that is nowhere on earth")
    return doubts


def _stated_px(tags: PhotoTags, width: int, height: int) -> list[float]:
    estimates = []
    if tags.focal_35mm is not None:
        estimates.append(tags.focal_35mm / DIAGONAL_35MM * math.hypot(width, height))
    if tags.focal_mm and tags.focal_plane_px_per_mm and tags.exif_size_px:
        taken_px = tags.focal_mm * tags.focal_plane_px_per_mm
        estimates.append(taken_px * max(width, height) / max(tags.exif_size_px))
    return estimates


def _plausible(focal_px: float, long_px: int) -> bool:
    return 0.3 * long_px < focal_px < 20 * long_px


def camera_group(tags: PhotoTags, width: int, height: int) -> str:
    """Name of the set of photos that share intrinsics: camera, zoom and image size."""
    camera = " ".join(part for part in (tags.make, tags.model) if part) or "unknown camera"
    if tags.focal_mm:
        camera += f" {tags.focal_mm:.2f}mm"
    if tags.digital_zoom is not None and tags.digital_zoom > 1.01:
        camera += f" zoom{tags.digital_zoom:.2f}"
    return f"{camera} {width}x{height}"


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None


def _positive(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number > 0 else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    printable = "".join(c for c in value.split("\x00")[0] if c.isprintable())
    return " ".join(printable.split())


def _focal_plane_resolution(detail: dict[int, Any]) -> float | None:
    resolution = _positive(detail.get(_TAGS.FocalPlaneXResolution))
    mm_per_unit = MM_PER_UNIT.get(detail.get(_TAGS.FocalPlaneResolutionUnit, 2))
    return resolution / mm_per_unit if resolution and mm_per_unit else None


def _size(detail: dict[int, Any]) -> tuple[float, float] | None:
    width = _positive(detail.get(_TAGS.ExifImageWidth))
    height = _positive(detail.get(_TAGS.ExifImageHeight))
    return (width, height) if width and height else None


def _position(gps: dict[int, Any]) -> tuple[float, float, float | None] | None:
    latitude = _degrees(gps.get(ExifTags.GPS.GPSLatitude), gps.get(ExifTags.GPS.GPSLatitudeRef))
    longitude = _degrees(gps.get(ExifTags.GPS.GPSLongitude), gps.get(ExifTags.GPS.GPSLongitudeRef))
    if latitude is None or longitude is None:
        return None
    altitude = _number(gps.get(ExifTags.GPS.GPSAltitude))
    below = gps.get(ExifTags.GPS.GPSAltitudeRef) in (1, b"\x01")
    if altitude is not None and below:
        altitude = -altitude
    if latitude == 0 and longitude == 0:  # what receivers write before they have a fix
        return None
    return latitude, longitude, altitude


def _on_earth(position: tuple[float, float, float | None] | None) -> bool:
    return position is not None and abs(position[0]) <= 90 and abs(position[1]) <= 180


def _degrees(parts: Any, reference: Any) -> float | None:
    if not isinstance(parts, (tuple, list)) or len(parts) != 3:
        return None
    numbers = [_number(part) for part in parts]
    if any(number is None for number in numbers):
        return None
    degree, minute, second = (number or 0.0 for number in numbers)
    value = degree + minute / 60 + second / 3600
    return -value if str(reference).upper().startswith(("S", "W")) else value
