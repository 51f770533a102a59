"""Training in less memory: signs of running out, results of pieces put together, a preflight."""

import ctypes
import sys
from collections.abc import Sequence

import psutil
import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.porf.rays import RenderOutput

_IMAGES_SHARE = 0.7
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_KEPT_BYTES = 2**30
_CPU_SIGNS = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


def keep_freed_memory() -> None:
    """Let glibc keep the large blocks that one step frees for the next.

    It hands them back to the system otherwise and gets them anew, cleared page by page: 5 to 20% of
    a step's processor time.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library may lack it
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the most that it takes
            mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch failed for lack of memory; its CPU allocator only says so in words."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _CPU_SIGNS)


def too_little_memory(device: torch.device) -> InputError:
    """For when nothing more can be made smaller."""
    return InputError(
        f"memory ran out on {device}, and nothing could be made smaller",
        hint="lower train.max_image_side, train.rays or train.epipolar.matches_per_step",
    )


def slices(length: int, size: int) -> list[slice]:
    """Consecutive slices of at most `size` that cover `length`."""
    return [slice(start, start + size) for start in range(0, length, size)]


def detached(output: RenderOutput) -> RenderOutput:
    """The same values without a graph."""
    return RenderOutput(
        color=output.color.detach(),
        opacity=output.opacity.detach(),
        depth=output.depth.detach(),
        normal=output.normal.detach(),
        regularisers={name: value.detach() for name, value in output.regularisers.items()},
        figures={name: value.detach() for name, value in output.figures.items()},
    )


def joined(outputs: Sequence[RenderOutput], shares: Sequence[float]) -> RenderOutput:
    """Outputs of consecutive rays as one; scalars are means weighted by `shares`."""

    def mean(values: Sequence[Tensor]) -> Tensor:
        return torch.stack([share * v for share, v in zip(shares, values, strict=True)]).sum(0)

    names, figures = outputs[0].regularisers, outputs[0].figures
    return RenderOutput(
        color=torch.cat([output.color for output in outputs]),
        opacity=torch.cat([output.opacity for output in outputs]),
        depth=torch.cat([output.depth for output in outputs]),
        normal=torch.cat([output.normal for output in outputs]),
        regularisers={
            name: mean([output.regularisers[name] for output in outputs]) for name in names
        },
        figures={name: mean([output.figures[name] for output in outputs]) for name in figures},
    )


def check_images_fit(
    views: int, size: tuple[int, int], bytes_a_pixel: int, device: torch.device
) -> None:
    """Refuse images that would not leave room to train beside them.

    Args:
        size: width, height of every image, pixels.

    Raises:
        InputError: says how large they may be.
    """
    free = _free_bytes(device)
    needed = views * size[0] * size[1] * bytes_a_pixel
    limit = _IMAGES_SHARE * free
    if needed <= limit:
        return
    fitting = int(max(size) * (limit / needed) ** 0.5) - 1  # sides are rounded to whole pixels
    raise InputError(
        f"{views} images of {size[0]}×{size[1]} pixels take {needed / 1e9:.1f} GB; {device} has "
        f"{free / 1e9:.1f} GB free",
        hint=f"reduce them with --set train.max_image_side={fitting}",
    )


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
