"""Coarse-to-fine extraction against the dense grid, in one run.

    python benchmarks/mesh.py                          # a bumpy body with an expensive field
    python benchmarks/mesh.py --train OUT/…/train      # a trained field
    python benchmarks/mesh.py --largest 1024           # also one size as coarse-to-fine only

For 256³ and 512³: how often the field is evaluated, how long it takes against the dense grid, and
how far the vertices of the two lie apart, which are on the same lattice. Times are only compared
within one run.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import mcubes
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.surface.extract import Extraction, Lattice, Sdf, extract_mesh

CHUNK = 1 << 18


def bumpy(x: torch.Tensor) -> torch.Tensor:
    """Signed distance, roughly, of a bumpy body of radius 0.55 with a handle beside it."""
    radius = x.norm(dim=1)
    bumps = 0.04 * torch.sin(11 * x[:, 0]) * torch.sin(9 * x[:, 1] + 1) * torch.sin(13 * x[:, 2])
    ring = torch.stack([torch.hypot(x[:, 0] - 0.55, x[:, 2]) - 0.2, x[:, 1]], dim=1)
    return torch.minimum(radius - 0.55 - bumps, ring.norm(dim=1) - 0.05)


def dense(sdf: Sdf, resolution: int, device: str) -> tuple[NDArray, NDArray]:
    """Vertices and faces of marching cubes on the full lattice."""
    lattice = Lattice(resolution)
    n = lattice.points_per_axis
    values = np.empty(n**3, dtype=np.float32)
    for start in range(0, n**3, CHUNK):
        ids = np.arange(start, min(start + CHUNK, n**3))
        points = torch.as_tensor(lattice.positions(ids), dtype=torch.float32, device=device)
        with torch.no_grad():
            values[ids] = sdf(points).reshape(-1).cpu().numpy()
    vertices, faces = mcubes.marching_cubes(values.reshape(n, n, n), 0.0)
    return vertices * lattice.cell - 1.0, faces


def furthest(found: Extraction, vertices: NDArray) -> tuple[float, int, int]:
    """Largest distance of a vertex inside the unit sphere to the dense mesh's nearest one.

    Returns:
        That distance, and how many vertices each of the two has inside the unit sphere.
    """
    ours = found.mesh.vertices[np.linalg.norm(found.mesh.vertices, axis=1) < 1]
    theirs = vertices[np.linalg.norm(vertices, axis=1) < 1]
    return float(cKDTree(theirs).query(ours)[0].max()), len(ours), len(theirs)


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Processor seconds, which other work on the machine does not change, and the result."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print one line a resolution."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, help="folder of a finished train stage")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--largest", type=int, default=0, help="coarse-to-fine only")
    arguments = parser.parse_args()
    sdf: Sdf = bumpy
    if arguments.train:
        from pipeline.porf.trained import load_trained  # noqa: PLC0415

        sdf = load_trained(arguments.train, device=arguments.device).sdf
    if arguments.largest:  # first, so that the peak of memory is its own
        before = peak_mb()
        seconds, found = timed(
            lambda: extract_mesh(sdf, arguments.largest, device=arguments.device)
        )
        assert isinstance(found, Extraction)
        print(
            f"{arguments.largest}³ coarse to fine only: {found.evaluations:,} evaluations "
            f"({found.dense_evaluations / found.evaluations:.0f} times fewer than dense), "
            f"{len(found.mesh.vertices):,} vertices, {seconds:.1f} s, "
            f"memory +{peak_mb() - before:.0f} MB (dense values alone: "
            f"{found.dense_evaluations * 4 / 1e6:.0f} MB)"
        )
    for resolution in arguments.resolutions:
        fine_s, found = timed(lambda n=resolution: extract_mesh(sdf, n, device=arguments.device))
        dense_s, result = timed(lambda n=resolution: dense(sdf, n, arguments.device))
        assert isinstance(found, Extraction) and isinstance(result, tuple)
        apart, ours, theirs = furthest(found, result[0])
        print(
            f"{resolution}³: {found.evaluations:,} of {found.dense_evaluations:,} evaluations "
            f"({found.dense_evaluations / found.evaluations:.1f} times fewer), "
            f"{dense_s / fine_s:.1f} times faster ({fine_s:.1f} s against {dense_s:.1f} s), "
            f"{ours:,} vertices against {theirs:,}, at most {apart:.1e} apart"
        )


if __name__ == "__main__":
    main()
