"""Checkpoints: written whole or not at all, loaded without executing anything."""

import hashlib
import json
import os
import pickle
import tempfile
from pathlib import Path
from typing import Any

import torch

from pipeline.formats.case import Case
from pipeline.porf.config import TrainConfig

FORMAT = 1
"""Raised whenever checkpoints of older code could not continue the same training."""


def training_digest(case: Case, config: TrainConfig, seed: int) -> str:
    """SHA-256 of everything that identifies a training: views, cameras, matches, options, seed."""
    digest = hashlib.sha256()
    options = {"format": FORMAT, "options": config.key_options(), "seed": seed}
    digest.update(json.dumps(options, sort_keys=True).encode())
    for paths in (case.image_paths, case.mask_paths or []):
        for path in paths:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    for array in (case.cameras.K, case.cameras.c2w, case.cameras.scale_mat):
        digest.update(array.tobytes())
    for view in case.matches:
        digest.update(repr(view.sources).encode())
        for array in (*view.matches_px, *view.heldout):
            digest.update(array.tobytes())
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
    """The one checkpoint of a training, bound to its digest."""

    def __init__(self, folder: Path, digest: str) -> None:
        self.path = folder / "checkpoint.pt"
        self.digest = digest

    def save(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint."""
        save_atomically(self.path, {**state, "digest": self.digest})

    def load(self, device: torch.device) -> tuple[dict[str, Any] | None, str | None]:
        """The stored state, or None and the reason why a file that is there is not used."""
        if not self.path.is_file():
            return None, None
        try:
            state = load_plain(self.path, device)
        except ValueError as error:
            return None, f"the checkpoint is not used: {error}"
        if state.get("digest") != self.digest:
            return None, "the checkpoint is not used: it belongs to another case, options or seed"
        return state, None
