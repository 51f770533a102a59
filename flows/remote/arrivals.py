"""Cases that have arrived in a watched folder."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.batch.entries import BatchRun, Choices, read_batch
from flows.finished import finished_results

QUIET_S = 30.0
"""A case whose files changed within this time is still being copied."""


def arrived(
    folder: Path, out: Path, preset: str, options: Mapping[str, Any], quiet_s: float = QUIET_S
) -> list[BatchRun]:
    """Cases that lie there whole and are not finished; those that are refused are left out.

    Raises:
        InputError: an unknown preset or option.
    """
    overrides = tuple(f"{name}={json.dumps(value)}" for name, value in options.items())
    if not (folder.is_dir() and any(p.is_dir() for p in folder.iterdir())):
        return []  # nothing has come yet
    runs = read_batch(folder, out, Choices(presets=(preset,), overrides=overrides))
    quiet = [run for run in runs if run.request and is_quiet(run.request.photos, quiet_s)]
    return [run for run in quiet if run.request and finished_results(run.request) is None]


def is_quiet(photos: Path, quiet_s: float) -> bool:
    """Whether nothing in a folder was written for so long.

    The time of change counts, not that of modification, which copying tools preserve; a time in
    the future (a clock that jumped) counts as long ago.
    """
    try:
        ages = [time.time() - p.stat().st_ctime for p in photos.iterdir() if p.is_file()]
    except OSError:
        return False
    return bool(ages) and all(age >= quiet_s or age < -quiet_s for age in ages)
