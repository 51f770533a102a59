"""Joint training of cameras and surface: one step, and everything that a checkpoint must hold."""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.errors import TrainingDiverged
from pipeline.porf.anchors import Anchors
from pipeline.porf.compiled import serves
from pipeline.porf.config import TrainConfig
from pipeline.porf.epipolar import MatchTable, epipolar_loss
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.losses import color_loss
from pipeline.porf.memory import detached, joined, slices
from pipeline.porf.models import field_schedule, regulariser_weights
from pipeline.porf.observations import Observations, PixelBatch
from pipeline.porf.poses import PoseField
from pipeline.porf.rays import ChunkedFieldModel, FieldModel, RayBatch, RenderOutput, camera_rays
from pipeline.porf.schedule import warmup_cosine

_OPACITY_MARGIN = 1e-3
_OPAQUE = 0.9
"""On the object, rays this opaque are left alone: to ask for more would bring surfaces forward, out
of hollows whose soft surfaces are not opaque yet."""


class JointTraining:
    """State of joint training and its step.

    Args:
        field, poses: models on the observations' device.
        table: training matches in the pixels of `match_K`.
        match_K: (V, 3, 3) intrinsics at the photos' full size.
        seed: of every draw made here.

    Attributes:
        memory_ran_out_at_step: the last time that the chunk was halved; None = never.
    """

    def __init__(
        self,
        config: TrainConfig,
        field: FieldModel,
        poses: PoseField,
        observations: Observations,
        table: MatchTable,
        match_K: Tensor,
        seed: int,
    ) -> None:
        self.config, self.field, self.poses = config, field, poses
        self.observations, self.table, self.match_K = observations, table, match_K
        self.step = 0
        self.fixed_c2w: Tensor | None = None
        self.optimiser = torch.optim.Adam(field.parameter_groups(), fused=True)
        self.base_rates = [float(group["lr"]) for group in self.optimiser.param_groups]
        self.pose_optimiser = self._pose_optimiser()
        self.generator = torch.Generator(observations.device).manual_seed(seed)
        self.host_generator = torch.Generator().manual_seed(seed + 1)
        self.regularisers = regulariser_weights(config)
        self.running = torch.zeros(5, device=observations.device)
        self.piece_rays: int | None = None
        self.memory_ran_out_at_step: int | None = None

    def _pose_optimiser(self) -> torch.optim.Adam | None:
        parameters = list(self.poses.parameters())
        if not parameters:
            return None
        return torch.optim.Adam(parameters, lr=self.config.pose.learning_rate, fused=True)

    @property
    def poses_move(self) -> bool:
        """Whether the cameras are trained at the present step."""
        start = self.config.pose.joint_start * self.config.steps
        return self.pose_optimiser is not None and self.fixed_c2w is None and self.step >= start

    @property
    def rate_factor(self) -> float:
        """Share of the base learning rates at the present step."""
        warmup, final = field_schedule(self.config)
        return warmup_cosine(self.step, self.config.steps, warmup, final)

    def current_c2w(self) -> Tensor:
        """(V, 4, 4) cameras in the normalised frame, without gradient."""
        if self.fixed_c2w is not None:
            return self.fixed_c2w
        with torch.no_grad():
            return self.poses()

    def fix_poses(self, c2w: Tensor) -> None:
        """Train the surface alone from here on, with these cameras (V, 4, 4)."""
        self.fixed_c2w = c2w.to(self.observations.device, torch.float32)

    def advance(self) -> None:
        """One training step."""
        config = self.config
        factor = self.rate_factor
        for group, rate in zip(self.optimiser.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        view = self._view_of_step()
        with torch.no_grad():
            self.field.begin_step(self.step, config.steps)
        moving = self.poses_move
        c2w = self.poses() if moving else self.current_c2w()
        epipolar = self._epipolar(c2w, view) if moving else c2w.new_zeros(())
        batch = self.observations.draw(config.rays, view, self.generator)
        rays = camera_rays(c2w, self.observations.K_inv, batch.view, batch.xy_px)
        # Kernels keep a large table's gradient where it is; elsewhere the first one is taken over.
        self.optimiser.zero_grad(set_to_none=not serves(self.running))
        if self.pose_optimiser is not None:
            self.pose_optimiser.zero_grad(set_to_none=True)
        output, loss, color = self._differentiate(rays, batch, epipolar)
        self.optimiser.step()
        if moving and self.pose_optimiser is not None:
            constant = config.pose.schedule == "constant"
            pose_rate = config.pose.learning_rate * (1.0 if constant else factor)
            self.pose_optimiser.param_groups[0]["lr"] = pose_rate
            self.pose_optimiser.step()
        self._accumulate(loss, color, output, batch, epipolar)
        self.step += 1

    def _view_of_step(self) -> int | None:
        if self.config.rays_from == "all_views":
            return None
        draw = torch.randint(len(self.observations), (1,), generator=self.host_generator)
        return int(draw)

    def _epipolar(self, c2w: Tensor, view: int | None) -> Tensor:
        options = self.config.epipolar
        if options.weight == 0 or self.table.num_pairs == 0:
            return c2w.new_zeros(())
        if options.pairs_from == "one_view" and view is not None:
            pairs = self.table.sample_pairs_of_view(
                view, self.host_generator, options.pairs_per_step
            )
        else:
            pairs = self.table.sample_pairs(options.pairs_per_step, self.host_generator)
        chosen = self.table.select(pairs, options.max_matches_per_pair, self.host_generator)
        return epipolar_loss(
            chosen,
            c2w,
            self.match_K,
            inlier_px=options.inlier_px,
            normaliser=options.pairs_per_step,
        ).loss

    def _differentiate(
        self, rays: RayBatch, batch: PixelBatch, epipolar: Tensor
    ) -> tuple[RenderOutput, Tensor, Tensor]:
        """Add the gradients of this step; returns the output, the loss and its colour term."""
        if not isinstance(self.field, ChunkedFieldModel) and self.piece_rays is not None:
            return self._in_pieces(rays, batch, epipolar, self.piece_rays)
        if batch.mask is not None or not isinstance(self.field, ChunkedFieldModel):
            output = self.field.render(rays, self.generator)
            loss, color = self._loss(output, batch, epipolar)
            loss.backward()
            return output, loss, color
        count = batch.trained.sum().clamp(min=1)

        def color_share(colors: Tensor, rows: slice) -> Tensor:
            off = (colors - batch.rgb[rows]).abs().sum(1)
            return (off * batch.trained[rows]).sum() / count

        output, ray_term = self.field.backward(rays, self.generator, color_share, self.regularisers)
        remaining = ray_term + self.config.epipolar.weight * epipolar
        if remaining.requires_grad:
            remaining.backward()
        with torch.no_grad():
            loss, color = self._loss(output, batch, epipolar)
        return output, loss, color

    def _in_pieces(
        self, rays: RayBatch, batch: PixelBatch, epipolar: Tensor, size: int
    ) -> tuple[RenderOutput, Tensor, Tensor]:
        """`_differentiate` with the memory of `size` rays; regularisers are means of the pieces."""
        ends = (rays.origins, rays.directions)
        leaves = RayBatch(*(end.detach().requires_grad_() for end in ends))
        outputs, losses, shares = [], [], []
        for rows in slices(len(batch.view), size):
            piece = RayBatch(leaves.origins[rows], leaves.directions[rows])
            part = batch.rows(rows)
            output = self.field.render(piece, self.generator)
            loss, color = self._loss(output, part, epipolar.detach())
            share = len(part.view) / len(batch.view)
            (share * loss).backward()
            outputs.append(detached(output))
            losses.append(share * torch.stack([loss.detach(), color.detach()]))
            shares.append(share)
        through_rays = [
            (e * leaf.grad).sum()
            for e, leaf in zip(ends, vars(leaves).values(), strict=True)
            if leaf.grad is not None and e.requires_grad
        ]
        remaining = sum(through_rays, self.config.epipolar.weight * epipolar)
        if remaining.requires_grad:
            remaining.backward()
        loss, color = torch.stack(losses).sum(0)
        return joined(outputs, shares), loss, color

    def halve_chunk(self) -> int | None:
        """Train half as many rays at a time from here on; how many, or None where it is one."""
        if isinstance(self.field, ChunkedFieldModel):
            smaller = self.field.halve_chunk()
        else:
            size = self.piece_rays or self.config.rays
            smaller = (size + 1) // 2 if size > 1 else None
        if smaller is not None:
            self.limit_chunk(smaller, self.step)
        return smaller

    @property
    def chunk_rays(self) -> int | None:
        """Rays trained at a time since memory ran out; None where it never did."""
        if self.memory_ran_out_at_step is None:
            return None
        if isinstance(self.field, ChunkedFieldModel):
            return self.field.chunk_rays
        return self.piece_rays

    def limit_chunk(self, rays: int | None, ran_out_at_step: int | None) -> None:
        """Train so many rays at a time from here on, as `chunk_rays` and its step say it."""
        if rays is None:
            return
        self.memory_ran_out_at_step = ran_out_at_step
        if isinstance(self.field, ChunkedFieldModel):
            self.field.chunk_rays = rays
        else:
            self.piece_rays = rays

    def random_state(self) -> tuple[Tensor, Tensor]:
        """Of both generators, so that a step can be done again with the same draws."""
        return self.generator.get_state(), self.host_generator.get_state()

    def set_random_state(self, state: tuple[Tensor, Tensor]) -> None:
        """Continue with the draws from where `random_state` was taken."""
        self.generator.set_state(state[0])
        self.host_generator.set_state(state[1])

    def _loss(
        self, output: RenderOutput, batch: PixelBatch, epipolar: Tensor
    ) -> tuple[Tensor, Tensor]:
        counted = batch.trained
        if batch.mask is not None:
            counted = counted * batch.mask
        color = color_loss(output.color, batch.rgb, counted)
        loss = color + self.config.epipolar.weight * epipolar
        for name, weight in self.regularisers.items():
            loss = loss + weight * output.regularisers[name]
        if batch.mask is not None:
            most = torch.where(batch.mask > 0, _OPAQUE, 1 - _OPACITY_MARGIN)
            opacity = output.opacity.clamp(min=_OPACITY_MARGIN).minimum(most)
            silhouette = F.binary_cross_entropy(opacity, batch.mask, weight=batch.trained)
            loss = loss + self.config.mask_weight * silhouette
        return loss, color

    def _accumulate(
        self,
        loss: Tensor,
        color: Tensor,
        output: RenderOutput,
        batch: PixelBatch,
        epipolar: Tensor,
    ) -> None:
        """Add this step's figures on the device; nothing waits for them."""
        with torch.no_grad():
            counted = batch.trained if batch.mask is None else batch.trained * batch.mask
            squared = ((output.color - batch.rgb) ** 2).mean(1) * counted
            mse = squared.sum() / counted.sum().clamp(min=1)
            eikonal = output.regularisers["eikonal"]
            figures = [loss, color, eikonal, epipolar, mse]
            self.running += torch.stack([f.detach().float() for f in figures])

    def take_figures(self, steps: int) -> dict[str, float]:
        """Means over the last `steps` steps; starts over.

        Raises:
            TrainingDiverged: the loss is not finite.
        """
        loss, color, eikonal, epipolar, mse = (self.running / max(1, steps)).tolist()
        self.running.zero_()
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the training loss is {loss} near step {self.step} of {self.config.steps}",
                hint="lower the learning rates of the train stage, or try another seed",
            )
        return {
            "loss": loss,
            "color": color,
            "eikonal": eikonal,
            "epipolar": epipolar,
            "psnr": -10 * math.log10(max(mse, 1e-10)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on; tensors and plain values."""
        optimiser = self.pose_optimiser
        return {
            "step": self.step,
            "field": cast(nn.Module, self.field).state_dict(),
            "poses": self.poses.state_dict(),
            "fixed_c2w": self.fixed_c2w,
            "optimiser": self.optimiser.state_dict(),
            "pose_optimiser": None if optimiser is None else optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "host_generator": self.host_generator.get_state(),
            "running": self.running,
            "anchors": self._anchor_lines(),
            "chunk_rays": self.chunk_rays,
            "memory_ran_out_at_step": self.memory_ran_out_at_step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        cast(nn.Module, self.field).load_state_dict(state["field"])
        self.poses.load_state_dict(state["poses"])
        self.step, self.fixed_c2w = int(state["step"]), state["fixed_c2w"]
        self.optimiser.load_state_dict(state["optimiser"])
        if self.pose_optimiser is not None:
            self.pose_optimiser.load_state_dict(state["pose_optimiser"])
        # Generator states live on the CPU wherever the generator does.
        self.generator.set_state(state["generator"].cpu())
        self.host_generator.set_state(state["host_generator"].cpu())
        self.running = state["running"]
        if isinstance(self.field, GridModel) and state["anchors"] is not None:
            self.field.anchors = Anchors.of_lines(state["anchors"])
        # Checkpoints of trainings that began before these were kept do not have them.
        self.limit_chunk(state.get("chunk_rays"), state.get("memory_ran_out_at_step"))

    def _anchor_lines(self) -> Tensor | None:
        anchors = self.field.anchors if isinstance(self.field, GridModel) else None
        return None if anchors is None else anchors.lines

    def is_finite(self) -> bool:
        """Whether every parameter is a number; waits for the device."""
        parameters = [*cast(nn.Module, self.field).parameters(), *self.poses.parameters()]
        return bool(torch.stack([p.isfinite().all() for p in parameters]).all())


@torch.no_grad()
def pixel_psnr(
    field: FieldModel,
    observations: Observations,
    c2w: Tensor,
    batch: PixelBatch,
    chunk: int = 1024,
) -> float:
    """PSNR in dB of rendered pixels; on the object alone where there are masks."""
    total = torch.zeros(2, dtype=torch.float64)
    for begin in range(0, len(batch.view), chunk):
        rows = slice(begin, begin + chunk)
        rays = camera_rays(c2w, observations.K_inv, batch.view[rows], batch.xy_px[rows])
        color = field.render(RayBatch(rays.origins, rays.directions), None).color
        squared = ((color - batch.rgb[rows]) ** 2).mean(1).double()
        counted = torch.ones_like(squared) if batch.mask is None else batch.mask[rows].double()
        total += torch.stack([(squared * counted).sum(), counted.sum()]).cpu()
    return float(-10 * torch.log10((total[0] / total[1].clamp(min=1)).clamp(min=1e-10)))
