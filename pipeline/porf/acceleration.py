"""What a GPU can do faster on request: cheaper matrix products, compiled rendering.

Both are off by default and stay off on a CPU, which gains nothing from them: a training whose
device was chosen by `auto` must not fail or change for lack of a GPU, so they are left out aloud.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from pipeline.porf.config import TrainConfig
from pipeline.progress import Progress

_PRECISIONS = {"off": "highest", "tf32": "high", "bf16": "medium"}
_OFF = "off: there is no CUDA device"


def unused_requests(config: TrainConfig, device: torch.device) -> dict[str, str]:
    """What was asked for and is left out on this device, with the reason; by option."""
    wanted = {"mixed_precision": config.mixed_precision != "off", "compile": config.compile}
    return {n: _OFF for n, on in wanted.items() if on and device.type != "cuda"}


@contextmanager
def matrix_precision(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Matrix products of the block run with `train.mixed_precision`; sums stay in float32."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision(_PRECISIONS[config.mixed_precision])
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def compile_rendering(field: nn.Module, backend: str | Callable[..., Any] = "inductor") -> None:
    """Let `torch.compile` fuse a field's shading; what it cannot take runs as before."""
    torch._dynamo.config.suppress_errors = True
    name = "shade" if hasattr(field, "shade") else "render"
    setattr(field, name, torch.compile(getattr(field, name), backend=backend))


def say_unused(unused: dict[str, str], progress: Progress) -> dict[str, Any]:
    """Tell what was left out; returns it for the manifest."""
    for name, reason in unused.items():
        progress.note(f"train.{name} is {reason}")
    return dict(unused)
