"""One GPU for one stage at a time, on this machine.

A flock a device, freed by the kernel however its holder ends: structure from motion of one case
runs beside the training of another, and two trainings never share the memory of a GPU.
"""

import fcntl
import importlib.metadata
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TextIO

from stages.base import Stage

_POLL_S = 0.5


@dataclass(frozen=True)
class Gpu:
    """One device.

    Attributes:
        name: what `CUDA_VISIBLE_DEVICES` calls it.
        lock_name: the same for everybody on this machine, whatever they call it.
    """

    name: str
    lock_name: str


def porf_home() -> Path:
    """Where this user's history and locks live: `PORF_HOME`, by default `~/.porf`."""
    return Path(os.environ.get("PORF_HOME", "~/.porf")).expanduser().absolute()


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """The GPUs that this process may use, in CUDA's order."""
    installed = _installed_gpus()
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return [Gpu(uuid, uuid) for uuid in installed]
    names = [name.strip() for name in chosen.split(",")]
    found = []
    for name in names:
        uuid = _uuid(name, installed)
        if uuid is None:
            break  # CUDA stops at the first name it does not know, too
        found.append(Gpu(name, uuid))
    return found


def _uuid(name: str, installed: Sequence[str]) -> str | None:
    if name.isdigit():
        return installed[int(name)] if int(name) < len(installed) else None
    return next((uuid for uuid in installed if name and uuid.startswith(name)), None)


@cache
def _installed_gpus() -> tuple[str, ...]:
    command = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()  # no driver, no GPU
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())


def wants_gpu(stage: Stage, options: Mapping[str, Any]) -> bool:
    """Whether a stage with these options computes on a GPU where there is one.

    COLMAP's stage usually has no use for one: while it waited for a slot, a training could not run.
    """
    if "device" not in stage.config_type.model_fields:
        return False
    chosen = options.get("device", "auto")
    return chosen == "cuda" or (chosen != "cpu" and (stage.name != "sfm" or _colmap_has_cuda()))


@cache
def _colmap_has_cuda() -> bool:
    """Whether the installed pycolmap is its CUDA build, without loading it."""
    return any(
        (package.metadata["Name"] or "").lower().startswith("pycolmap-cuda")
        for package in importlib.metadata.distributions()
    )


@contextmanager
def gpu_slot(
    gpus: Sequence[Gpu],
    folder: Path,
    on_wait: Callable[[], None] | None = None,
    poll_s: float = _POLL_S,
) -> Iterator[Gpu | None]:
    """Hold one of the devices; None where there is none to hold.

    Args:
        folder: where the locks lie.
        on_wait: called once if all are taken; then waits.
    """
    if not gpus:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    told = False
    while (taken := _take_any(gpus, folder)) is None:
        if on_wait and not told:
            on_wait()
        told = True
        time.sleep(poll_s)
    gpu, lock = taken
    with lock:
        yield gpu


def _take_any(gpus: Sequence[Gpu], folder: Path) -> tuple[Gpu, TextIO] | None:
    for gpu in gpus:
        file = (folder / f"gpu-{gpu.lock_name}.lock").open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        except BaseException:
            file.close()
            raise
        return gpu, file
    return None
