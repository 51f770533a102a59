"""How CPU kernels are compiled and run: by numba, on sleeping threads, one caller at a time."""

import threading
from typing import Any

import numba
import torch
from numpy.typing import NDArray
from torch import Tensor

# OpenMP's idle threads spin, beside torch's that spin too: on a busy machine a step then costs six
# times the processor time (measured). The work queue's threads sleep. It serves one caller at a
# time, hence `lock`.
numba_config: Any = numba.config
numba_config.THREADING_LAYER = "workqueue"

lock = threading.Lock()
"""To be held around every call of a parallel kernel."""

parallel: Any = numba.njit(parallel=True, nogil=True, cache=True, fastmath={"contract"})
part: Any = numba.njit(nogil=True, cache=True, fastmath={"contract"})
inlined: Any = numba.njit(inline="always")


def use_threads(count: int) -> None:
    """Let the kernels run on `count` threads, or on as many as numba has."""
    numba.set_num_threads(min(count, int(numba_config.NUMBA_NUM_THREADS)))


def serves(tensor: Tensor) -> bool:
    """Whether kernels compute with a tensor: single precision, on a CPU; torch does elsewhere."""
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def arrays(*tensors: Tensor) -> tuple[NDArray, ...]:
    """Tensors as kernels take them: in one piece, without gradients."""
    return tuple(tensor.detach().contiguous().numpy() for tensor in tensors)
