"""Photos as stereo compares them: grey, small, with their cameras."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.porf.observations import scaled_intrinsics

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class StereoViews:
    """Grey views at stereo's size.

    Attributes:
        grey: (V, 1, H, W) in [0, 1].
        K: (V, 3, 3) intrinsics at this size, pixel centres at integers.
        c2w: (V, 4, 4) cameras, normalised frame.
    """

    grey: Tensor
    K: Tensor
    c2w: Tensor

    @property
    def w2c(self) -> Tensor:
        """(V, 4, 4)."""
        return torch.linalg.inv(self.c2w)

    def directions(self, i: int) -> Tensor:
        """(H, W, 3) unit ray directions of view i, normalised frame."""
        height, width = self.grey.shape[2:]
        rows = torch.arange(height, device=self.grey.device, dtype=torch.float32)
        columns = torch.arange(width, device=self.grey.device, dtype=torch.float32)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1)
        turned = self.c2w[i, :3, :3] @ torch.linalg.inv(self.K[i])
        return F.normalize(pixels @ turned.T, dim=-1)


def stereo_views(images: Tensor, K: Tensor, c2w: Tensor, max_side: int) -> StereoViews:
    """Reduce views (V, H, W, 3) uint8 with intrinsics (V, 3, 3) for the sweep."""
    height, width = images.shape[1:3]
    scale = min(1.0, max_side / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    luma = torch.tensor(_LUMA, device=images.device)
    grey = torch.cat(
        [
            F.interpolate((view.float() / 255 @ luma)[None, None], size, mode="area")
            for view in images
        ]
    )
    K_small = scaled_intrinsics(K.cpu().double().numpy(), size[1] / width, size[0] / height)
    small = torch.from_numpy(K_small).to(K)
    return StereoViews(grey, small, c2w)
