"""Published figures to stand beside one's own.

Source: Bian et al., "PoRF: pose residual field for accurate neural surface reconstruction",
ICLR 2024: DTU, means over 15 scans, and scan 65 of it; MobileBrick, means over 18 scenes. The
surfaces of its tables are from a second training with the refined cameras held fixed.
"""

from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.suggest import nearest

PREFIX = "published:"


@dataclass(frozen=True)
class PublishedRow:
    """One method's figures: metric name → value, in that metric's unit."""

    name: str
    figures: dict[str, float]


_PUBLISHED = {
    "dtu": [
        PublishedRow(
            "COLMAP, DTU mean",
            {"rotation_mean": 0.65, "translation_mean_mm": 1.03, "dtu_overall": 3.48},
        ),
        PublishedRow("BARF, DTU mean", {"rotation_mean": 0.69}),
        PublishedRow("SPARF, DTU mean", {"rotation_mean": 0.39}),
        PublishedRow(
            "PoRF, DTU mean",
            {"rotation_mean": 0.14, "translation_mean_mm": 1.02, "dtu_overall": 0.85},
        ),
        PublishedRow("true cameras, DTU mean", {"dtu_overall": 0.72}),
    ],
    "dtu65": [
        PublishedRow("COLMAP, DTU scan 65", {"rotation_mean": 0.67, "dtu_overall": 3.52}),
        PublishedRow("PoRF, DTU scan 65", {"rotation_mean": 0.16, "dtu_overall": 1.02}),
    ],
    "mobilebrick": [
        PublishedRow("ARKit, MobileBrick mean", {"f1_2.5mm": 69.18}),
        PublishedRow("PoRF, MobileBrick mean", {"f1_2.5mm": 75.67}),
        PublishedRow("data set's own cameras, MobileBrick mean", {"f1_2.5mm": 75.13}),
    ],
}


def published_rows(name: str) -> list[PublishedRow]:
    """The rows of `dtu`, `dtu65` or `mobilebrick`.

    Raises:
        InputError: no such set.
    """
    if name not in _PUBLISHED:
        raise InputError(
            f"no published figures '{name}'{nearest(name, _PUBLISHED)}",
            hint="there are: " + ", ".join(PREFIX + known for known in _PUBLISHED),
        )
    return _PUBLISHED[name]
