"""One recorded training step of the original PoRF code, opened for the golden tests."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.formats.matches import ViewMatches
from pipeline.porf.epipolar import MatchTable, invert_intrinsics
from pipeline.porf.neus_field import ColorField, SdfField, Variance
from pipeline.porf.neus_renderer import NeusRenderer, SampledRays
from pipeline.porf.poses import LearnPose, PoRF
from pipeline.porf.rays import camera_rays
from pipeline.porf.sampling import outside_fractions


class GoldenStep:
    """The arrays of `porf_step.npz` and our models with its weights."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            self._arrays = {name: arrays[name] for name in arrays.files}
        self.view = int(self._arrays["image_index"])
        self.cos_anneal = float(self._arrays["cos_anneal_ratio"])
        self.sources = [int(j) for j in self._arrays["match_source_index"]]

    def tensor(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.from_numpy(np.asarray(self._arrays[name])).to(dtype)

    def number(self, name: str) -> float:
        return float(self._arrays[name])

    def state(self, net: str) -> dict[str, Tensor]:
        """Recorded parameters of one network; `progress` was never used by the original."""
        prefix = f"weight/{net}."
        names = [n for n in self._arrays if n.startswith(prefix) and not n.endswith("progress")]
        return {name.removeprefix(prefix): self.tensor(name) for name in names}

    def gradient(self, net: str, name: str) -> Tensor:
        return self.tensor(f"grad/{net}.{name}", torch.float64)

    def renderer(self, dtype: torch.dtype = torch.float32) -> NeusRenderer:
        renderer = NeusRenderer(SdfField(), ColorField(), Variance())
        renderer.sdf_field.load_state_dict(self.state("sdf"))
        renderer.color_field.load_state_dict(self.state("color"))
        renderer.variance.load_state_dict(self.state("variance"))
        return renderer.to(dtype)

    def porf(self, dtype: torch.dtype = torch.float32) -> PoRF:
        field = PoRF(self.tensor("init_c2w"))
        weights = {k.removeprefix("layers."): v for k, v in self.state("porf").items()}
        field.layers.load_state_dict(weights)
        return field.to(dtype)

    def weights(self, net: str) -> dict[str, Tensor]:
        """Recorded weight matrices of one network by their layers, weight norm applied."""
        state = self.state(net)
        plain = {k.removesuffix(".weight"): v for k, v in state.items() if k.endswith(".weight")}
        for name in [k.removesuffix(".weight_v") for k in state if k.endswith("_v")]:
            v = state[f"{name}.weight_v"]
            plain[name] = state[f"{name}.weight_g"] * v / v.norm(dim=1, keepdim=True)
        return plain

    def learn_pose(self) -> LearnPose:
        field = LearnPose(self.tensor("init_c2w"))
        field.load_state_dict(self.state("learn"), strict=False)
        return field

    def intrinsics(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.tensor("K", dtype).expand(len(self.tensor("init_c2w")), 3, 3)

    def match_table(self) -> MatchTable:
        views = [ViewMatches([], [], []) for _ in self.tensor("init_c2w")]
        matches = [self._arrays[f"match_{j}"] for j in self.sources]
        kept = [np.zeros(len(m), dtype=bool) for m in matches]
        views[self.view] = ViewMatches(self.sources, matches, kept)
        return MatchTable.from_matches(views)

    def rays(self, c2w: Tensor) -> tuple[Tensor, Tensor]:
        """Rays (48, 3) of the recorded pixels through poses (6, 4, 4), as training casts them."""
        pixels = self.tensor("pixels", c2w.dtype)
        view = torch.full((len(pixels),), self.view)
        rays = camera_rays(c2w, invert_intrinsics(self.intrinsics(c2w.dtype)), view, pixels)
        return rays.origins, rays.directions

    def recorded_samples(self, origins: Tensor, directions: Tensor) -> SampledRays:
        """The original's own surface samples, recovered from its section midpoints.

        Placing importance samples turns a rounding of 1e-7 in the density into a shift of 1e-4
        where the density is low. With the samples given, the rest can be compared sharply.
        """
        from_origin = self.tensor("out_pts", torch.float64) - self.tensor("rays_o")[:, None]
        along = (from_origin * self.tensor("rays_d", torch.float64)[:, None]).sum(-1)
        depths = [self.tensor("near", torch.float64)[:, 0]]
        for section in range(127):
            depths.append(2 * along[:, section] - depths[-1])
        surface = torch.stack(depths, dim=1).to(origins.dtype)
        fractions = outside_fractions(len(origins), 32, surface, None)
        return SampledRays(origins, directions, surface, fractions)
