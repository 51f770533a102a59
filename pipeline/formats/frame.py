"""What the world frame of a case is, and how to get back to the one that SfM began with."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.geometry.similarity import Similarity

UNKNOWN = "unknown"


@dataclass(frozen=True)
class WorldFrame:
    """The frame of all cameras, points and meshes of a case.

    Attributes:
        unit: of length: `m`, `mm` or `unknown`.
        source: what told scale and orientation, in a few words.
        from_sfm: SfM's own frame → this one; the identity where nothing was known.
        up: unit (3,) where gravity is known, pointing away from the earth.
        origin: latitude and longitude in degrees, altitude in metres of the frame's origin, for
            an east-north-up frame.
        figures: how well the evidence fits, units in the names.
    """

    unit: str = UNKNOWN
    source: str = "nothing: SfM alone knows no scale"
    from_sfm: Similarity = field(default_factory=Similarity.identity)
    up: tuple[float, float, float] | None = None
    origin: tuple[float, float, float] | None = None
    figures: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For `sfm.json`, `scene.json` and exports; the similarity in both directions."""
        return {
            "unit": self.unit,
            "source": self.source,
            "world_from_sfm": self.from_sfm.matrix.tolist(),
            "sfm_from_world": self.from_sfm.inverse().matrix.tolist(),
            "up": self.up,
            "origin_wgs84": self.origin,
            "figures": self.figures,
        }


def frame_from_json(stored: dict[str, Any] | None) -> WorldFrame:
    """Inverse of `WorldFrame.as_json`; the default frame where nothing is stored."""
    if not stored:
        return WorldFrame()
    return WorldFrame(
        unit=str(stored["unit"]),
        source=str(stored["source"]),
        from_sfm=Similarity.from_matrix(np.array(stored["world_from_sfm"], dtype=np.float64)),
        up=_triple(stored.get("up")),
        origin=_triple(stored.get("origin_wgs84")),
        figures=dict(stored.get("figures") or {}),
    )


def load_frame(sfm_report: Path) -> WorldFrame:
    """The frame that a `sfm.json` records; the default one where it records none."""
    if not sfm_report.is_file():
        return WorldFrame()
    return frame_from_json(json.loads(sfm_report.read_text(encoding="utf-8")).get("frame"))


def _triple(values: Any) -> tuple[float, float, float] | None:
    return None if values is None else (float(values[0]), float(values[1]), float(values[2]))
