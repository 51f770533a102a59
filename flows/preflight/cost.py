"""Time, memory and disk of each stage, from the workload and the options.

The forms follow what the stages do (pixels to extract, pairs to match, steps to train, lattice to
extract); their constants are those of the runs in `docs/results.md`, one thread of an x86-64 core.
Times on this machine follow from its own runs: see `flows.preflight.measured`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flows.preflight.workload import Workload

_MB = 1e-3
"""GB in a MB."""


@dataclass(frozen=True)
class Cost:
    """What one stage takes.

    Attributes:
        wall_s: seconds.
        memory_gb: largest resident size.
        disk_gb: of its artifact, and of its results at the top of the output folder.
    """

    wall_s: float
    memory_gb: float
    disk_gb: float


def stage_cost(stage: str, load: Workload, settings: Any, threads: int) -> Cost:
    """The expected cost of a stage by name; small and constant where nothing is known of it."""
    formula = _FORMULAS.get(stage)
    return formula(load, settings, max(1, threads)) if formula else Cost(5.0, 0.3, 0.0)


def _megapixels(load: Workload, settings: Any) -> float:
    return load.bounded(settings.ingest.max_side_px)


def _features(load: Workload, settings: Any) -> float:
    """Features of a photo: as many as there is texture for, at most what is kept."""
    return min(settings.sfm.max_features, 5000 * _megapixels(load, settings))


def _pairs(load: Workload, settings: Any) -> float:
    if load.views <= settings.sfm.exhaustive_limit:
        return load.views * (load.views - 1) / 2
    return load.views * settings.sfm.neighbours * 2


def _ingest(load: Workload, settings: Any, threads: int) -> Cost:
    workers = min(settings.ingest.threads, load.views)
    return Cost(
        wall_s=1 + 0.06 * load.views * load.megapixels / min(workers, threads),
        memory_gb=0.1 + 0.014 * load.largest_megapixels * workers,
        disk_gb=2 * _MB * load.views * _megapixels(load, settings),
    )


def _sfm(load: Workload, settings: Any, threads: int) -> Cost:
    size, count = _megapixels(load, settings), _features(load, settings)
    used = min(settings.sfm.threads, threads)
    extract = 2.5 * load.views * size
    match = 0.35 * _pairs(load, settings) * (count / 8192) ** 2
    return Cost(
        wall_s=5 + (extract + match) / used + 2.0 * load.views,
        memory_gb=0.25 + 0.25 * size * min(settings.sfm.threads, load.views) + 2e-3 * load.views,
        disk_gb=_MB * (load.views * count * 152e-6 + _pairs(load, settings) * count * 4e-6),
    )


def _scene(load: Workload, settings: Any, threads: int) -> Cost:
    size = _megapixels(load, settings)
    images = 2 * _MB * load.views * size
    return Cost(2 + load.views * (0.1 + 0.2 * size), 0.2 + 0.1 * size, 2 * images)


def _matches(load: Workload, settings: Any, threads: int) -> Cost:
    count = _pairs(load, settings) * _features(load, settings)
    stored = 4e-9 * count  # a tenth match, from both sides, 20 bytes each
    return Cost(1 + 2e-3 * _pairs(load, settings), 0.15 + stored, 2 * stored)


def _train(load: Workload, settings: Any, threads: int) -> Cost:
    options = settings.train
    size = _megapixels(load, settings)
    if options.max_image_side:
        size = min(size, load.bounded(options.max_image_side))
    images = 3 * _MB * load.views * size
    joint = options.rays / 512
    twice = options.surface.mode == "second_stage"
    if options.field == "neus":
        step_s, parameters = 11.0 * joint, 1.5e6
    else:
        grids = [options.grid, *([options.surface] if twice else [])]
        entries = max(len(grid.resolutions) * 2**grid.log2_entries for grid in grids)
        step_s, parameters = 0.25 * joint * options.grid.samples / 28, entries * 4.0
    steps = options.steps + (options.surface.steps if twice else 0)
    state = 4e-9 * 4 * parameters  # values, gradients and Adam's two moments
    return Cost(
        wall_s=30 + (steps * step_s + options.epipolar.steps * 0.02) / min(threads, 4),
        memory_gb=0.6 + images + state,
        disk_gb=state + 0.02,  # the checkpoint's values and moments, the model; anchors
    )


def _mesh(load: Workload, settings: Any, threads: int) -> Cost:
    lattice = (settings.mesh.resolution / 256) ** 2
    images = 3 * _MB * load.views * _megapixels(load, settings)
    return Cost(5 + 25 * lattice, 0.6 + 0.5 * lattice + images, 0.03 * lattice)


def _evaluate(load: Workload, settings: Any, threads: int) -> Cost:
    return Cost(30.0, 0.8, 0.005)


def _report(load: Workload, settings: Any, threads: int) -> Cost:
    return Cost(25 + 0.3 * load.views, 0.8, 0.02)


_FORMULAS: dict[str, Callable[[Workload, Any, int], Cost]] = {
    "ingest": _ingest,
    "sfm": _sfm,
    "scene": _scene,
    "matches": _matches,
    "train": _train,
    "mesh": _mesh,
    "evaluate": _evaluate,
    "report": _report,
}
