"""Whether a run fits this machine, and what would."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from flows.case_folder import CaseFolder
from flows.console import duration
from flows.devices import visible_gpus, wants_gpu
from flows.plan import Choice, look_ahead
from flows.preflight.cost import Cost, stage_cost
from flows.preflight.measured import Measurements
from flows.preflight.workload import Workload, read_workload
from flows.request import RunRequest
from flows.settings import settings_from
from pipeline.errors import InputError
from stages.registry import STAGES

CERTAINTY = 0.7
"""Refused is what would not fit even at this share of the estimate; estimates may be that wrong."""

SMALL_GB = 0.1
"""Less than this is not worth refusing: a disk so full is named when it strikes."""

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_SIDES_PX = (3200, 2400, 2000, 1600, 1200, 1000, 800, 640)


@dataclass(frozen=True)
class Room:
    """What the machine has, in GB."""

    memory_gb: float
    disk_gb: float


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take.

    Attributes:
        stages: cost by stage that would run.
        unknown: stages whose time on this machine's GPU was never measured.
    """

    stages: dict[str, Cost]
    unknown: tuple[str, ...] = ()

    @property
    def wall_s(self) -> float:
        """Seconds of all stages, the unknown ones left out."""
        return sum(cost.wall_s for name, cost in self.stages.items() if name not in self.unknown)

    @property
    def memory_gb(self) -> float:
        """Of the largest stage."""
        return max((cost.memory_gb for cost in self.stages.values()), default=0.0)

    @property
    def largest(self) -> str:
        """The stage that needs the most memory."""
        return max(self.stages, key=lambda name: self.stages[name].memory_gb)

    @property
    def disk_gb(self) -> float:
        """Of all artifacts that would be made."""
        return sum(cost.disk_gb for cost in self.stages.values())

    def text(self) -> str:
        """For a person, on one line."""
        time = f"about {duration(round(self.wall_s))}"
        if self.unknown:
            time += f" and {', '.join(self.unknown)} (never measured on this GPU)"
        return f"{time}, {self.memory_gb:.1f} GB of memory, {self.disk_gb:.2f} GB of disk"


def estimate(
    load: Workload,
    settings: Any,
    stages: Iterable[str],
    threads: int | None = None,
    measured: Measurements | None = None,
) -> Estimate:
    """What these stages are expected to take on this machine."""
    measured = measured or Measurements()
    threads = thread_count() if threads is None else max(1, threads)
    gpus = visible_gpus()
    costs, unknown = {}, []
    for name in stages:
        options = getattr(settings, name).model_dump(mode="json")
        device = "gpu" if gpus and wants_gpu(STAGES[name], options) else "cpu"
        time = measured.time_ratio(name, device)
        if time is None and device == "gpu":
            unknown.append(name)
        memory = measured.memory_ratio(name, device) or 1.0
        cost = stage_cost(name, load, settings, threads)
        costs[name] = Cost(cost.wall_s * (time or 1.0), cost.memory_gb * memory, cost.disk_gb)
    return Estimate(costs, tuple(unknown))


def check_run(
    request: RunRequest, folder: CaseFolder, choice: Choice, external: Mapping[str, dict[str, str]]
) -> Estimate | None:
    """The estimate of what a run has yet to do; None where that is nothing, or is unknown.

    Raises:
        InputError: it cannot fit into memory or onto the disk; says what would fit.
    """
    settings = settings_from(request.settings)
    prospects = look_ahead(folder, settings, external, choice)
    return check_stages(request, [p.stage for p in prospects if p.reasons])


def check_stages(request: RunRequest, stages: list[str]) -> Estimate | None:
    """The same for these stages."""
    load = read_workload(request.paths) if stages else None
    if load is None:
        return None
    settings = settings_from(request.settings)
    expected = estimate(load, settings, stages)
    refuse_what_cannot_fit(expected, room(request.out), request, load, stages)
    return expected


def jobs_that_fit(requests: Iterable[RunRequest], most: int) -> int:
    """How many of these runs fit into memory side by side, at least one and at most `most`."""
    if most == 1:
        return 1
    peaks = [0.1]
    for request in requests:
        load = read_workload(request.paths)
        if load is not None:
            settings = settings_from(request.settings)
            peaks.append(estimate(load, settings, STAGES, thread_count() // most).memory_gb)
    return max(1, min(most, int(memory_limit_gb() / max(peaks))))


def refuse_what_cannot_fit(
    expected: Estimate, has: Room, request: RunRequest, load: Workload, stages: list[str]
) -> None:
    """Raise `InputError` where memory or disk are short beyond doubt."""
    memory, disk = CERTAINTY * expected.memory_gb, CERTAINTY * expected.disk_gb
    if memory > has.memory_gb:
        raise InputError(
            f"{expected.largest} needs about {expected.memory_gb:.1f} GB of memory for "
            f"{load.views} photos, this machine has {has.memory_gb:.1f} GB",
            hint=_what_fits(load, request, stages, lambda e: e.memory_gb <= has.memory_gb),
        )
    if disk > max(has.disk_gb, SMALL_GB):
        short = f"free {expected.disk_gb - has.disk_gb:.1f} GB, choose another -o, or "
        raise InputError(
            f"the results of {load.views} photos need about {expected.disk_gb:.1f} GB, "
            f"{request.out} has {has.disk_gb:.1f} GB left",
            hint=short + _what_fits(load, request, stages, lambda e: e.disk_gb <= has.disk_gb),
        )


def _what_fits(
    load: Workload, request: RunRequest, stages: list[str], fits: Callable[[Estimate], bool]
) -> str:
    """The mildest change of options that would fit."""
    for words in _milder(request.settings):
        changed = _with(request.settings, words)
        if fits(estimate(load, settings_from(changed), stages)):
            return "this would fit: " + " ".join(f"--set {n}={v}" for n, v in words.items())
    return "give fewer photos"


def _milder(settings: Mapping[str, Any]) -> Iterable[dict[str, int]]:
    few = {"sfm.threads": 1} if settings["sfm"]["threads"] > 1 else {}
    if few:
        yield few
    for side in _SIDES_PX:
        if side < settings["ingest"]["max_side_px"]:
            yield {"ingest.max_side_px": side}
            if few:
                yield {"ingest.max_side_px": side, **few}


def _with(settings: Mapping[str, Any], words: Mapping[str, int]) -> dict[str, Any]:
    changed = {name: dict(v) if isinstance(v, dict) else v for name, v in settings.items()}
    for name, value in words.items():
        stage, _, option = name.partition(".")
        changed[stage][option] = value
    return changed


def room(out: Path) -> Room:
    """Memory of the machine or its container, and what is left on the disk of `out`."""
    existing = next(p for p in (out, *out.parents) if p.exists())
    return Room(memory_limit_gb(), shutil.disk_usage(existing).free / 1e9)


def memory_limit_gb() -> float:
    """Memory that a process here can have at most: the container's limit, or the machine's."""
    limits = [psutil.virtual_memory().total]
    for path in _CGROUP_LIMITS:
        try:
            limits.append(int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue  # no such file, or `max`
    return min(limits) / 1e9


def thread_count() -> int:
    """Threads that numerical work gets: `OMP_NUM_THREADS`, else the cores."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) > 0 else os.cpu_count() or 1
