"""Numbers and durations as a person reads them."""

import math
from typing import Any

_UNITS = {"deg": "°", "degrees": "°", "unknown": "scene units", "fraction": "", "1": "", "none": ""}


def number(value: Any) -> str:
    """Three significant digits; thousands apart; words as they are."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u202f")
    if isinstance(value, float):
        return _real(value)
    if isinstance(value, list | tuple):
        return ", ".join(number(item) for item in value)
    return str(value)


def _real(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace(",", "\u202f")
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, digits)}f}" if digits <= 6 else f"{value:.2e}"


def unit(name: str | None) -> str:
    """Unit as it is written behind a number."""
    return _UNITS.get(name or "", name or "")


def length(value: float, unit_name: str) -> str:
    """A number with its unit; metres as millimetres where they are small."""
    if unit_name == "m" and 0 < abs(value) < 0.01:
        return f"{number(1000 * value)}\u00a0mm"
    return f"{number(value)}\u00a0{unit(unit_name)}"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 5 s`, `2 h 10 min`, with spaces that no line breaks at."""
    if seconds < 10:
        return f"{seconds:.1f}\u00a0s"
    if seconds < 60:
        return f"{seconds:.0f}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return _two(minutes, "min", rest, "s")
    hours, minutes = divmod(minutes, 60)
    return _two(hours, "h", minutes, "min")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    shown = f"{large}\u00a0{large_unit}"
    return f"{shown}\u00a0{small}\u00a0{small_unit}" if small else shown


def memory(megabytes: float) -> str:
    """`350 MB`, `2.1 GB`."""
    if megabytes <= 0:
        return "–"
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def percent(fraction: float) -> str:
    """`12%`, `0.3%`, `<0.1%`."""
    if 0 < fraction < 0.0005:
        return "<0.1%"
    return f"{fraction:.0%}" if fraction == 0 or fraction >= 0.1 else f"{fraction:.1%}"


_WORDS = {"psnr": "PSNR", "ssim": "SSIM", "sfm": "SfM", "heldout": "held-out"}
_SUFFIXES = {"px": " px", "deg": "°", "db": " dB", "mb": " MB", "s": " s", "percent": "%"}


def plain_name(identifier: str) -> str:
    """`psnr_heldout_mean` as `PSNR held-out mean`."""
    return " ".join(_WORDS.get(word, word) for word in identifier.split("_"))


def told(identifier: str, value: Any) -> str:
    """`heldout_error_px`, 0.3 as `held-out error 0.300 px`: units in names go behind the value."""
    stem, _, suffix = identifier.rpartition("_")
    if stem and suffix in _SUFFIXES:
        return f"{plain_name(stem)} {number(value)}{_SUFFIXES[suffix]}"
    return f"{plain_name(identifier)} {number(value)}"
