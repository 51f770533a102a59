"""Coarse-to-fine marching cubes: the field is evaluated only near its zero level set.

The field at the centres of all blocks of `BLOCK_CELLS`³ cells tells which blocks may hold
surface; the lattice values of those are evaluated once each; marching cubes runs block by block;
and wherever the surface leaves a block toward a neighbour that was not opened, the neighbour is
opened. So every piece of surface that is met at all is followed to its end, even where the field
is no true distance.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import mcubes
import numpy as np
import torch
import trimesh
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.progress import NullProgress, Progress

BLOCK_CELLS = 8

Sdf = Callable[[torch.Tensor], torch.Tensor]
"""Signed distance (N,), negative inside, of points (N, 3) in the normalised frame."""


@dataclass(frozen=True)
class Lattice:
    """`resolution`³ cells over the cube [-1, 1]³; lattice point i lies at 2 i / resolution - 1."""

    resolution: int

    @property
    def cell(self) -> float:
        """Edge of a cell."""
        return 2.0 / self.resolution

    @property
    def points_per_axis(self) -> int:
        """Number of lattice points along an axis."""
        return self.resolution + 1

    def positions(self, ids: NDArray) -> NDArray:
        """Positions (N, 3) of lattice points by id (N,)."""
        n = self.points_per_axis
        ijk = np.stack([ids // (n * n), ids // n % n, ids % n], axis=1)
        return ijk * self.cell - 1.0

    def block_ids(self, blocks: NDArray) -> NDArray:
        """Ids (B, 9, 9, 9) of all lattice points of blocks (B, 3)."""
        n = self.points_per_axis
        step = np.arange(BLOCK_CELLS + 1)
        x, y, z = (blocks[:, axis, None] * BLOCK_CELLS + step for axis in range(3))
        ids: NDArray = (x[:, :, None, None] * n + y[:, None, :, None]) * n + z[:, None, None, :]
        return ids


@dataclass
class Extraction:
    """What marching cubes found.

    Attributes:
        mesh: normalised frame, faces wound so that normals point to growing distance (outward).
        cell: edge of a lattice cell.
        evaluations: how often the field was evaluated.
        dense_evaluations: how many evaluations the full lattice would have taken.
    """

    mesh: trimesh.Trimesh
    cell: float
    evaluations: int
    dense_evaluations: int


@dataclass
class _Samples:
    """Lattice values known so far, sorted by id."""

    sdf: "_CountedSdf"
    lattice: Lattice
    ids: NDArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    values: NDArray = field(default_factory=lambda: np.zeros(0, dtype=np.float32))

    def ensure(self, blocks: NDArray) -> None:
        """Evaluate the lattice points of the blocks (B, 3) that are not known yet."""
        wanted = np.sort(self.lattice.block_ids(blocks), axis=None)
        wanted = wanted[np.diff(wanted, prepend=-1) > 0]  # much faster than np.unique here
        new = np.setdiff1d(wanted, self.ids, assume_unique=True)
        values = self.sdf(new, self.lattice.positions)
        # a value of exactly zero would put several vertices on one lattice point: move it by 1e-7
        # of a typical value (inside, as marching cubes has it): far less than a cell
        values[values == 0] = -1e-7 * np.abs(values).mean() if len(values) else 0.0
        ids = np.concatenate([self.ids, new])
        order = np.argsort(ids, kind="stable")
        self.ids, self.values = ids[order], np.concatenate([self.values, values])[order]

    def of_blocks(self, blocks: NDArray) -> NDArray:
        """Values (B, 9, 9, 9) of blocks (B, 3)."""
        found: NDArray = self.values[np.searchsorted(self.ids, self.lattice.block_ids(blocks))]
        return found


class _CountedSdf:
    """The field as numpy → numpy in chunks, counting evaluations and reporting progress.

    What names a point (its id, its block) is turned into a position a chunk at a time: positions
    of all points would take more memory than all else.
    """

    def __init__(self, sdf: Sdf, device: str, chunk_points: int, progress: Progress) -> None:
        self.sdf, self.device, self.chunk_points = sdf, device, chunk_points
        self.progress, self.evaluations = progress, 0

    def __call__(self, items: NDArray, positions: Callable[[NDArray], NDArray]) -> NDArray:
        values = np.empty(len(items), dtype=np.float32)
        for start in range(0, len(items), self.chunk_points):
            points = positions(items[start : start + self.chunk_points])
            chunk = torch.as_tensor(points, dtype=torch.float32)
            with torch.no_grad():
                out = self.sdf(chunk.to(self.device))
            values[start : start + len(chunk)] = out.detach().float().cpu().numpy().reshape(-1)
            self.progress.advance("field", start + len(chunk), len(items))
        self.evaluations += len(items)
        if not np.isfinite(values).all():
            raise InputError(
                "the trained field gives values that are not finite numbers",
                hint="the training diverged: run the stage `train` again with a smaller step size",
            )
        return values


def extract_mesh(
    sdf: Sdf,
    resolution: int,
    *,
    lipschitz: float = 1.5,
    device: str = "cpu",
    chunk_points: int = 1 << 16,
    progress: Progress | None = None,
) -> Extraction:
    """Zero level set of a field inside the unit sphere.

    Blocks that lie wholly outside the unit sphere are never opened. The mesh is cut off raggedly,
    within one block outside the sphere; `clean.clip_to_sphere` trims it.

    Args:
        sdf: signed distance, negative inside, in the normalised frame.
        resolution: cells along an edge of the cube [-1, 1]³, a multiple of 8.
        lipschitz: largest slope that the field may have before small separate pieces are missed;
            1 for a true distance. Larger is safer and slower.
        device: where `sdf` wants its points.
        chunk_points: points evaluated at a time.

    Raises:
        InputError: the resolution is not a multiple of 8, or the field is not finite.
    """
    if resolution < BLOCK_CELLS or resolution % BLOCK_CELLS:
        raise InputError(
            f"the mesh resolution must be a multiple of {BLOCK_CELLS}, got {resolution}",
            hint=f"use {max(1, round(resolution / BLOCK_CELLS)) * BLOCK_CELLS}",
        )
    lattice = Lattice(resolution)
    counted = _CountedSdf(sdf, device, chunk_points, progress or NullProgress())
    samples = _Samples(counted, lattice)
    blocks = _blocks_near_surface(counted, lattice, lipschitz)
    vertices, faces = _march_and_follow(samples, lattice, blocks)
    mesh = trimesh.Trimesh(vertices * lattice.cell - 1.0, faces, process=False)
    return Extraction(mesh, lattice.cell, counted.evaluations, lattice.points_per_axis**3)


def _blocks_near_surface(sdf: _CountedSdf, lattice: Lattice, lipschitz: float) -> NDArray:
    """Blocks (B, 3) that may hold surface, judged by the field at the blocks' centres."""
    per_axis = lattice.resolution // BLOCK_CELLS
    edge = BLOCK_CELLS * lattice.cell
    blocks = np.stack(np.meshgrid(*[np.arange(per_axis)] * 3, indexing="ij"), -1).reshape(-1, 3)
    blocks = blocks[_in_lattice_and_sphere(blocks, lattice)]
    values = np.full((per_axis,) * 3, np.nan, dtype=np.float32)
    values[tuple(blocks.T)] = sdf(blocks, lambda some: (some + 0.5) * edge - 1.0)
    near = np.abs(values) <= lipschitz * edge * np.sqrt(3) / 2
    for axis in range(3):
        changes = np.diff(np.sign(values), axis=axis)
        changes = (changes != 0) & np.isfinite(changes)
        first: list[slice | int] = [slice(None)] * 3
        second = list(first)
        first[axis], second[axis] = slice(None, -1), slice(1, None)
        near[tuple(first)] |= changes
        near[tuple(second)] |= changes
    return np.argwhere(near)


def _march_and_follow(
    samples: _Samples, lattice: Lattice, blocks: NDArray
) -> tuple[NDArray, NDArray]:
    """Marching cubes over the blocks and every neighbour that the surface runs into."""
    opened = np.zeros((lattice.resolution // BLOCK_CELLS,) * 3, dtype=bool)
    vertex_parts: list[NDArray] = []
    face_parts: list[NDArray] = []
    count = 0
    while len(blocks):
        opened[tuple(blocks.T)] = True
        samples.ensure(blocks)
        crossing_blocks: list[NDArray] = []
        # gathered a batch of blocks at a time: each holds 9³ values
        for start in range(0, len(blocks), 1024):
            batch = blocks[start : start + 1024]
            values = samples.of_blocks(batch)
            inside = values < 0
            crosses = inside.any(axis=(1, 2, 3)) & ~inside.all(axis=(1, 2, 3))
            for block, block_values in zip(batch[crosses], values[crosses], strict=True):
                vertices, faces = mcubes.marching_cubes(block_values, 0.0)
                vertex_parts.append(vertices + block * BLOCK_CELLS)
                # PyMCubes winds toward falling values; outward is toward growing ones
                face_parts.append(faces[:, ::-1].astype(np.int64) + count)
                count += len(vertices)
            crossing_blocks.append(_entered_neighbours(batch, inside))
        blocks = np.unique(np.concatenate(crossing_blocks), axis=0)
        blocks = blocks[_in_lattice_and_sphere(blocks, lattice)]
        blocks = blocks[~opened[tuple(blocks.T)]]
    if count == 0:
        return np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)
    return _merge(np.concatenate(vertex_parts), np.concatenate(face_parts), lattice)


def _entered_neighbours(blocks: NDArray, inside: NDArray) -> NDArray:
    """Neighbours (M, 3) of blocks (B, 3) across whose common side the sign changes."""
    entered = []
    for axis in range(3):
        for end, step in ((0, -1), (BLOCK_CELLS, 1)):
            side = inside.take(end, axis=axis + 1)
            crosses = side.any(axis=(1, 2)) & ~side.all(axis=(1, 2))
            entered.append(blocks[crosses] + step * np.eye(3, dtype=np.int64)[axis])
    return np.concatenate(entered)


def _in_lattice_and_sphere(blocks: NDArray, lattice: Lattice) -> NDArray:
    per_axis = lattice.resolution // BLOCK_CELLS
    edge = BLOCK_CELLS * lattice.cell
    distance = np.linalg.norm((blocks + 0.5) * edge - 1.0, axis=1)
    in_lattice = ((blocks >= 0) & (blocks < per_axis)).all(axis=1)
    touches: NDArray = in_lattice & (distance < 1.0 + edge * np.sqrt(3) / 2)
    return touches


def _merge(vertices: NDArray, faces: NDArray, lattice: Lattice) -> tuple[NDArray, NDArray]:
    """Join the blocks' vertices: one vertex for each lattice edge that the surface crosses.

    Vertices are in lattice coordinates; two of the three are whole numbers. Neighbouring blocks
    compute a common vertex from the same two values, so any of the copies may be kept.
    """
    low = np.floor(vertices).astype(np.int64)
    fractional = vertices != low
    axis = np.where(fractional.any(axis=1), fractional.argmax(axis=1), 3)
    n = lattice.points_per_axis
    key = ((low[:, 0] * n + low[:, 1]) * n + low[:, 2]) * 4 + axis
    _, first, new_index = np.unique(key, return_index=True, return_inverse=True)
    faces = new_index[faces]
    distinct = (
        (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    )
    return vertices[first], faces[distinct]
