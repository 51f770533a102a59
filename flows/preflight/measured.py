"""What stages really took on this machine, against what was expected.

One line a computed stage in `PORF_HOME/measured.jsonl`; estimates are scaled by the median of the
latest ratios of the same stage on the same kind of device.
"""

import json
import math
import statistics
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.devices import porf_home
from flows.preflight.cost import Cost
from pipeline.store.manifest import Manifest

_LATEST = 9
_MOST_BYTES = 200_000
"""Older lines are forgotten beyond this."""


def measured_path() -> Path:
    """Where the measurements lie."""
    return porf_home() / "measured.jsonl"


def remember(manifest: Manifest, expected: Cost, threads: int) -> None:
    """Note what a stage took; a disk that refuses is no reason to fail."""
    line = {
        "stage": manifest.stage,
        "device": _kind(str(manifest.verdict.settings.get("device", "cpu"))),
        "threads": threads,
        "wall_s": manifest.wall_s,
        "expected_s": round(expected.wall_s, 2),
        "memory_gb": round(manifest.peak_memory_mb / 1024, 3),
        "expected_gb": round(expected.memory_gb, 3),
    }
    path = measured_path()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        _forget_old(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


class Measurements:
    """Ratios of real to expected figures by stage and kind of device."""

    def __init__(self, path: Path | None = None) -> None:
        self._lines = list(_read(path or measured_path()))

    def time_ratio(self, stage: str, device: str) -> float | None:
        """How many times longer than expected the stage took lately; None if it never ran."""
        return self._ratio(stage, device, "wall_s", "expected_s")

    def memory_ratio(self, stage: str, device: str) -> float | None:
        """The same of memory."""
        return self._ratio(stage, device, "memory_gb", "expected_gb")

    def _ratio(self, stage: str, device: str, real: str, expected: str) -> float | None:
        ratios = [
            line[real] / line[expected]
            for line in self._lines
            if line["stage"] == stage and line["device"] == device
        ]
        return statistics.median(ratios[-_LATEST:]) if ratios else None


def _read(path: Path) -> Iterator[dict[str, Any]]:
    numbers = ("wall_s", "expected_s", "memory_gb", "expected_gb")
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for text in lines:
        with suppress(ValueError, TypeError, KeyError, RecursionError, OverflowError):
            line = json.loads(text)
            figures = {name: float(line[name]) for name in numbers}
            if all(0 < figure < math.inf for figure in figures.values()):
                yield {**figures, "stage": str(line["stage"]), "device": str(line["device"])}


def _forget_old(path: Path) -> None:
    if path.is_file() and path.stat().st_size > _MOST_BYTES:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        path.write_text("\n".join(lines[len(lines) // 2 :]) + "\n", encoding="utf-8")


def _kind(device: str) -> str:
    return "gpu" if device.startswith("cuda") else "cpu"
