"""Learned perceptual distance of pictures, where its weights are at hand.

Source: Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric",
CVPR 2018, version 0.1 with AlexNet: features after each ReLU, scaled to unit length in each place;
squared differences weighted by channel, averaged over places, summed over layers.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pipeline.errors import InputError

BACKBONE_FILE = "alexnet-owt-7be5be79.pth"
"""torchvision's AlexNet, as torch's hub stores it."""
HEADS_FILE = "lpips_alex.pth"
"""`alex.pth` of LPIPS 0.1: keys `lin<i>.model.1.weight`."""

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LAYERS = (
    (0, (3, 64, 11), {"stride": 4, "padding": 2}),
    (3, (64, 192, 5), {"padding": 2}),
    (6, (192, 384, 3), {"padding": 1}),
    (8, (384, 256, 3), {"padding": 1}),
    (10, (256, 256, 3), {"padding": 1}),
)
"""Place in torchvision's `features`, shape, options of AlexNet's convolutions."""
_POOLED_AFTER = (0, 3)


class Lpips:
    """The network; call it with two pictures of one size (h, w, 3) uint8."""

    def __init__(self, backbone: dict[str, Any], heads: dict[str, Any]) -> None:
        self._convolutions = []
        for place, (inputs, outputs, kernel), options in _LAYERS:
            layer = nn.Conv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]
            layer.load_state_dict(
                {
                    "weight": backbone[f"features.{place}.weight"],
                    "bias": backbone[f"features.{place}.bias"],
                }
            )
            self._convolutions.append(layer)
        self._heads = [heads[f"lin{i}.model.1.weight"].reshape(-1) for i in range(len(_LAYERS))]

    def __call__(self, a: NDArray, b: NDArray) -> float:
        """Distance, 0 for equal pictures."""
        with torch.no_grad():
            total = torch.zeros(())
            pairs = zip(self._features(a), self._features(b), self._heads, strict=True)
            for x, y, weight in pairs:
                difference = ((x - y) ** 2 * weight[:, None, None]).sum(dim=0)
                total += difference.mean()
        return float(total)

    def _features(self, picture: NDArray) -> list[torch.Tensor]:
        x = torch.as_tensor(np.array(picture), dtype=torch.float32).permute(2, 0, 1)
        x = 2 * x / 255 - 1
        x = (x - torch.tensor(_SHIFT)[:, None, None]) / torch.tensor(_SCALE)[:, None, None]
        found = []
        for (place, _, _), layer in zip(_LAYERS, self._convolutions, strict=True):
            x = torch.relu(layer(x[None])[0])
            found.append(x / (x.norm(dim=0, keepdim=True) + 1e-10))
            if place in _POOLED_AFTER:
                x = torch.max_pool2d(x[None], 3, 2)[0]
        return found


def find_lpips(folder: Path | None = None) -> Lpips | None:
    """The network from the weights in torch's hub folder; None where they are not there.

    Nothing is ever downloaded.

    Raises:
        InputError: the files are there but are not these weights.
    """
    folder = folder or Path(torch.hub.get_dir()) / "checkpoints"
    paths = [folder / BACKBONE_FILE, folder / HEADS_FILE]
    if not all(path.is_file() for path in paths):
        return None
    try:
        backbone, heads = (torch.load(path, weights_only=True) for path in paths)
        return Lpips(backbone, heads)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise InputError(f"the LPIPS weights in {folder} are damaged ({error})") from error
