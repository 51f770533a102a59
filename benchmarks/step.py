"""Time a training step of the reference preset against a plain textbook version of the same step.

    python benchmarks/step.py [--rays 512] [--rounds 3] [--preset dtu_sift_porf]

Both do the whole step: cameras, epipolar loss of one view with up to 20 others, sampling along the
rays, rendering, losses, gradients, Adam. The textbook version runs the distance network twice,
differentiates its own gradient (`create_graph`), and goes through views and pairs one by one. They
take turns in one run and get the same draws; before the timing their gradients are compared.

Times are CPU time of this process on a CPU (other load hardly disturbs them), wall time on CUDA.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flows.settings import resolve
from pipeline.formats.matches import ViewMatches
from pipeline.geometry.cameras import look_at, project
from pipeline.porf.config import TrainConfig
from pipeline.porf.epipolar import MatchTable
from pipeline.porf.joint import JointTraining
from pipeline.porf.models import build_field, build_poses, resolve_device
from pipeline.porf.neus_model import NeusModel
from pipeline.porf.neus_renderer import SampledRays
from pipeline.porf.observations import Observations, PixelBatch
from pipeline.porf.poses import PoseField
from pipeline.porf.sampling import (
    coarse_depths,
    hierarchical_depths,
    near_far,
    outside_fractions,
)
from tests.porf import textbook

VIEWS, WIDTH, HEIGHT, POINTS = 30, 320, 240, 1500
STEP = 2500
GEMM = 1024


@dataclass
class Scene:
    """A made-up case: cameras on a ring, noise for images, exact matches."""

    observations: Observations
    c2w: Tensor
    K: Tensor
    table: MatchTable


def make_scene(device: torch.device) -> Scene:
    """Views around a cloud of points in the unit sphere."""
    rng = np.random.default_rng(0)
    K = np.array([[300.0, 0, WIDTH / 2], [0, 300.0, HEIGHT / 2], [0, 0, 1]])
    angles = 2 * np.pi * np.arange(VIEWS) / VIEWS
    centres = 3 * np.stack([np.cos(angles), np.sin(angles), 0.3 + 0 * angles], axis=1)
    up = np.array([0.0, 0.0, 1.0])
    c2w = np.stack([look_at(centre, np.zeros(3), up) for centre in centres])
    points = rng.normal(size=(POINTS, 3)) * 0.2
    pixels = [project(K, pose, points)[0] for pose in c2w]
    matches = []
    for i in range(VIEWS):
        sources = [j for j in range(VIEWS) if j != i]
        rows = [np.concatenate([pixels[i], pixels[j]], axis=1) for j in sources]
        rows = [row.astype(np.float32) + rng.normal(size=row.shape) * 0.5 for row in rows]
        kept = [np.zeros(len(row), dtype=bool) for row in rows]
        matches.append(ViewMatches(sources, rows, kept))
    Ks = torch.from_numpy(K).float().expand(VIEWS, 3, 3).contiguous().to(device)
    images = rng.integers(0, 256, (VIEWS, HEIGHT, WIDTH, 3), dtype=np.uint8)
    blocks = torch.zeros(VIEWS, -(-HEIGHT // 16), -(-WIDTH // 16), dtype=torch.bool)
    observations = Observations(
        images=torch.from_numpy(images).to(device),
        masks=None,
        K=Ks,
        K_inv=torch.linalg.inv(Ks),
        box_px=torch.tensor([[0, 0, WIDTH, HEIGHT]]).repeat(VIEWS, 1).to(device),
        heldout=blocks.to(device),
        color_divisor=256,
    )
    table = MatchTable.from_matches(matches, max_matches_per_pair=None, device=device)
    return Scene(observations, torch.from_numpy(c2w).float(), Ks, table)


def ours(config: TrainConfig, scene: Scene, device: torch.device) -> JointTraining:
    """The trainer's own step, in the middle of training."""
    generator = torch.Generator().manual_seed(1)
    field = build_field(config, generator, device)
    poses = build_poses(config.pose, scene.c2w, generator).to(device)
    joint = JointTraining(config, field, poses, scene.observations, scene.table, scene.K, 2)
    joint.step = STEP
    return joint


class Textbook:
    """The same step, written down plainly, with networks and draws of its own."""

    def __init__(self, config: TrainConfig, scene: Scene, device: torch.device) -> None:
        twin = ours(config, scene, device)
        self.config, self.scene = config, scene
        self.field: NeusModel = twin.field  # type: ignore[assignment]
        self.poses: PoseField = twin.poses
        self.generator, self.host_generator = twin.generator, twin.host_generator
        self.optimiser = torch.optim.Adam(self.field.parameters(), lr=config.neus.learning_rate)
        self.pose_optimiser = torch.optim.Adam(self.poses.parameters(), config.pose.learning_rate)

    def advance(self) -> None:
        """One training step."""
        view = int(torch.randint(VIEWS, (1,), generator=self.host_generator))
        epipolar = self._epipolar(view)
        batch = self.scene.observations.draw(self.config.rays, view, self.generator)
        rays = self._sampled(*self._rays(batch, view))
        cos_anneal = STEP / self.config.neus.cos_anneal_steps
        loss = textbook.photometric_loss(self.field, rays, batch.rgb, cos_anneal)
        loss = loss + self.config.epipolar.weight * epipolar
        self.optimiser.zero_grad()
        self.pose_optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()
        self.pose_optimiser.step()

    def _epipolar(self, view: int) -> Tensor:
        table = self.scene.table
        pairs = table.sample_pairs_of_view(view, self.host_generator, 20)
        chosen = table.select(pairs, 5000, self.host_generator)
        c2w = {int(v): self.poses(v) for v in (torch.tensor(view), *chosen.pair_src.cpu())}
        total = torch.zeros((), device=table.device)
        for pair, source in enumerate(chosen.pair_src.tolist()):
            matches = chosen.points_px[chosen.pair_of_match == pair]
            both = torch.stack([c2w[view], c2w[source]])
            K = self.scene.K[[view, source]]
            inlier_px = self.config.epipolar.inlier_px
            total = total + textbook.epipolar_loss([(0, 1, matches)], both, K, inlier_px)
        return total

    def _rays(self, batch: PixelBatch, view: int) -> tuple[Tensor, Tensor]:
        pose = self.poses(torch.tensor(view))
        homogeneous = torch.cat([batch.xy_px, torch.ones_like(batch.xy_px[:, :1])], dim=1)
        in_camera = homogeneous @ torch.linalg.inv(self.scene.K[view]).T
        in_camera = in_camera / in_camera.norm(dim=1, keepdim=True)
        return pose[:3, 3].expand_as(in_camera), in_camera @ pose[:3, :3].T

    @torch.no_grad()
    def _depths(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        counts = self.field.counts
        near, far = near_far(origins, directions)
        coarse = coarse_depths(near, far, counts.coarse, self.generator)
        fractions = outside_fractions(len(origins), counts.outside, near, self.generator)

        def sdf(points: Tensor) -> Tensor:
            return textbook.sdf_network(self.field.sdf_field, points)[:, 0]

        ends = (origins, directions, coarse)
        fine = hierarchical_depths(sdf, *ends, count=counts.importance, steps=counts.upsample_steps)
        return fine, fractions

    def _sampled(self, origins: Tensor, directions: Tensor) -> SampledRays:
        return SampledRays(origins, directions, *self._depths(origins, directions))


def gradients(step: JointTraining | Textbook) -> list[Tensor]:
    """All gradients of one step, without changing the weights."""
    kept = [p.detach().clone() for p in _parameters(step)]
    step.advance()
    found = [p.grad.clone() for p in _parameters(step) if p.grad is not None]
    with torch.no_grad():
        for parameter, value in zip(_parameters(step), kept, strict=True):
            parameter.copy_(value)
    return found


def _parameters(step: JointTraining | Textbook) -> list[torch.nn.Parameter]:
    return [*step.field.parameters(), *step.poses.parameters()]  # type: ignore[attr-defined]


def worst_difference(plain: Textbook, fast: JointTraining) -> float:
    """Largest relative difference of a gradient tensor between the two versions."""
    pairs = zip(gradients(plain), gradients(fast), strict=True)
    return max(float((a - b).norm() / a.norm().clamp(min=1e-12)) for a, b in pairs)


def seconds(action: Callable[[], object], device: torch.device) -> float:
    """CPU time on a CPU, wall time on CUDA."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        start = time.perf_counter()
        action()
        torch.cuda.synchronize()
        return time.perf_counter() - start
    start = time.process_time()
    action()
    return time.process_time() - start


def main() -> None:
    """Compare, time in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="dtu_sift_porf")
    parser.add_argument("--rays", type=int, default=None, help="default: the preset's")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    config: TrainConfig = resolve(arguments.preset).train
    config = config.model_copy(update={"rays": arguments.rays or config.rays})
    scene = make_scene(device)
    plain, fast = Textbook(config, scene, device), ours(config, scene, device)
    print(f"{arguments.preset}, {config.rays} rays, {device}, {torch.get_num_threads()} threads")
    print(f"largest relative difference of a gradient: {worst_difference(plain, fast):.1e}")
    counter = FlopCounterMode(display=False)
    with counter:
        fast.advance()
    gflop = counter.get_total_flops() / 1e9
    a, b = (torch.randn(GEMM, GEMM, device=device) for _ in range(2))
    ratios, steps, gemms = [], [], []
    for _ in range(arguments.rounds):
        slow_s = seconds(plain.advance, device)
        fast_s = seconds(fast.advance, device)
        gemm_s = seconds(lambda: [a @ b for _ in range(20)], device) / 20
        ratios.append(slow_s / fast_s)
        steps.append(gflop / fast_s)
        gemms.append(2 * GEMM**3 / 1e9 / gemm_s)
        print(f"textbook {slow_s:7.2f} s   ours {fast_s:7.2f} s   ratio {ratios[-1]:.2f}")
    print(f"median ratio {median(ratios):.2f}")
    print(
        f"matrix products of a step {gflop:.0f} GFLOP at {median(steps):.1f} GFLOP/s; sgemm of "
        f"this machine {median(gemms):.1f} GFLOP/s ({median(steps) / median(gemms):.0%})"
    )


if __name__ == "__main__":
    main()
