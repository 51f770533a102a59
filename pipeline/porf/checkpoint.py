"""Checkpoints: written whole or not at all, loaded without executing anything."""

import hashlib
import json
import os
import pickle
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.case import Case
from pipeline.porf.config import TrainConfig

FORMAT = 1
"""Of finished models. Raised whenever newer code could not open them."""

CHECKPOINT_FORMAT = 4
"""Raised whenever checkpoints of older code could not continue the same training."""

_NAMED_DIFFERENCES = 4


def training_identity(case: Case, config: TrainConfig, seed: int) -> dict[str, Any]:
    """What a training is of: options and seed as they are, SHA-256 of the parts of the case."""
    cameras = case.cameras
    matches = [
        part
        for view in case.matches
        for part in (repr(view.sources).encode(), *_bytes([*view.matches_px, *view.heldout]))
    ]
    return {
        "options": config.key_options(),
        "seed": seed,
        "images": _sha256(_contents(case.image_paths)),
        "masks": _sha256(_contents(case.mask_paths or [])),
        "cameras": _sha256(_bytes([cameras.K, cameras.c2w, cameras.scale_mat])),
        "matches": _sha256(matches),
    }


def identity_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs between two trainings, one clause each, by the names that users know."""
    found = [
        f"train.{name} {before} → {now}"
        for name, before, now in _option_differences("", old["options"], new["options"])
    ]
    if old["seed"] != new["seed"]:
        found.append(f"seed {old['seed']} → {new['seed']}")
    parts = ("images", "masks", "cameras", "matches")
    return found + [f"other {part}" for part in parts if old[part] != new[part]]


def _option_differences(
    prefix: str, old: dict[str, Any], new: dict[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    for name in sorted({*old, *new}):
        before, now = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            yield from _option_differences(f"{prefix}{name}.", before, now)
        elif json.dumps(before) != json.dumps(now):
            yield f"{prefix}{name}", before, now


def _contents(paths: Iterable[Path]) -> Iterator[bytes]:
    return (hashlib.sha256(path.read_bytes()).digest() for path in paths)


def _bytes(arrays: Iterable[NDArray]) -> Iterator[bytes]:
    return (array.tobytes() for array in arrays)


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def save_atomically(path: Path, state: dict[str, Any]) -> None:
    """`torch.save` of tensors and plain values; readers see the old file or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def load_plain(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read what `save_atomically` wrote: tensors and plain values only.

    Raises:
        ValueError: not such a file, damaged, or holding anything else.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path} holds a {type(state).__name__}, expected a dictionary")
    return state


class CheckpointFile:
    """The one checkpoint of a training, bound to its identity.

    Attributes:
        path: of the file.
        step: of the state that was saved or loaded last, None before.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.path = folder / "checkpoint.pt"
        self.identity = identity
        self.step: int | None = None

    def save(self, state: dict[str, Any], step: int) -> None:
        """Replace the checkpoint."""
        marks = {"format": CHECKPOINT_FORMAT, "identity": self.identity, "step": step}
        save_atomically(self.path, {**state, **marks})
        self.step = step

    def load(self, device: torch.device) -> tuple[dict[str, Any] | None, str | None]:
        """The stored state, or None and the reason why a file that is there is of no use.

        Raises:
            InputError: a sound checkpoint of another training; says what differs.
        """
        if not self.path.is_file():
            return None, None
        try:
            state = load_plain(self.path, device)
        except ValueError as error:
            return None, f"the checkpoint is not used: {error}"
        if state.get("format") != CHECKPOINT_FORMAT or "identity" not in state:
            return None, "the checkpoint is not used: another version of the program wrote it"
        differences = identity_differences(state["identity"], self.identity)
        if differences:
            named = "; ".join(differences[:_NAMED_DIFFERENCES])
            more = len(differences) - _NAMED_DIFFERENCES
            raise InputError(
                f"the checkpoint {self.path} belongs to another training: {named}"
                + (f" and {more} more" if more > 0 else ""),
                hint="train in another folder, or start anew with --no-resume",
            )
        self.step = int(state["step"])
        return state, None
