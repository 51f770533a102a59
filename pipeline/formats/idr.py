"""Cameras in the IDR / NeuS / PoRF convention: `world_mat_i` and `scale_mat_i` in one npz.

`world_mat_i` (4, 4) is K[R|t], world → pixels, with pixel centres at integer coordinates;
`scale_mat_i` (4, 4) maps the unit sphere around the object into the world.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.archive import check_unpacked_size
from pipeline.geometry.cameras import decompose_projection, projection_matrix


@dataclass(frozen=True)
class IdrCameras:
    """Cameras of one scene.

    Attributes:
        K: (N, 3, 3) intrinsics, pixels.
        c2w: (N, 4, 4) camera-to-world, world frame.
        scale_mat: (4, 4) unit sphere → world, the same for all views.
    """

    K: NDArray
    c2w: NDArray
    scale_mat: NDArray

    def __len__(self) -> int:
        return len(self.c2w)

    @property
    def radius(self) -> float:
        """Radius of the region of interest in world units."""
        return float(self.scale_mat[0, 0])

    @property
    def centre(self) -> NDArray:
        """Centre (3,) of the region of interest in the world frame."""
        return self.scale_mat[:3, 3]

    @property
    def c2w_normalised(self) -> NDArray:
        """(N, 4, 4) poses in the frame where the region of interest is the unit sphere."""
        return to_normalised(self.c2w, self.scale_mat)

    def with_normalised_poses(self, c2w_normalised: NDArray) -> "IdrCameras":
        """The same cameras with other poses, given in the normalised frame."""
        return IdrCameras(self.K, to_world(c2w_normalised, self.scale_mat), self.scale_mat)


def to_normalised(c2w: NDArray, scale_mat: NDArray) -> NDArray:
    """World-frame poses (N, 4, 4) in the normalised frame; rotations stay, centres scale."""
    moved = np.array(c2w, dtype=np.float64)
    moved[:, :3, 3] = (moved[:, :3, 3] - scale_mat[:3, 3]) / scale_mat[0, 0]
    return moved


def to_world(c2w_normalised: NDArray, scale_mat: NDArray) -> NDArray:
    """Inverse of `to_normalised`."""
    moved = np.array(c2w_normalised, dtype=np.float64)
    moved[:, :3, 3] = moved[:, :3, 3] * scale_mat[0, 0] + scale_mat[:3, 3]
    return moved


def make_scale_mat(centre: NDArray, radius: float) -> NDArray:
    """(4, 4) that maps the unit sphere onto the sphere of `radius` around `centre` (3,)."""
    scale_mat = np.diag([radius, radius, radius, 1.0])
    scale_mat[:3, 3] = centre
    return scale_mat


def save_idr_cameras(path: Path, cameras: IdrCameras, unit: str | None = None) -> None:
    """Write `cameras` where IDR, NeuS and PoRF read them.

    Args:
        unit: of lengths in the world frame, where known; stored as `unit`, which others ignore.
    """
    world_mats = projection_matrix(cameras.K, cameras.c2w)
    arrays: dict[str, NDArray] = {}
    for i, world_mat in enumerate(world_mats):
        arrays[f"world_mat_{i}"] = world_mat
        arrays[f"scale_mat_{i}"] = cameras.scale_mat
    if unit is not None:
        arrays["unit"] = np.array(unit)
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
        file.flush()
        os.fsync(file.fileno())


def load_idr_cameras(path: Path) -> IdrCameras:
    """Read cameras written by anyone in the IDR convention.

    Raises:
        InputError: no such file, not an npz, a matrix missing, of the wrong shape or not finite,
            or `scale_mat_i` that differ between views.
    """
    mats = _read_matrices(path)
    count = 0
    while f"world_mat_{count}" in mats:
        count += 1
    if count == 0:
        raise InputError(
            f"{path} has no world_mat_0: expected cameras in the IDR convention",
            hint="give an npz with world_mat_i = K[R|t] (4×4) for every photo",
        )
    world_mats = np.stack([_matrix(mats, f"world_mat_{i}", path) for i in range(count)])
    scale_mats = np.stack(
        [_matrix(mats, f"scale_mat_{i}", path, default=np.eye(4)) for i in range(count)]
    )
    if not np.allclose(scale_mats, scale_mats[:1], rtol=1e-5, atol=1e-8):
        raise InputError(f"{path}: the scale_mat_i differ between views; expected one for all")
    split = [decompose_projection(world_mat) for world_mat in world_mats]
    return IdrCameras(
        np.stack([K for K, _ in split]), np.stack([c2w for _, c2w in split]), scale_mats[0]
    )


def _read_matrices(path: Path) -> dict[str, NDArray]:
    try:
        check_unpacked_size(path)
        with np.load(path, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in stored.files}
    except FileNotFoundError as error:
        raise InputError(f"no camera file at {path}") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a folder: expected a camera file (.npz)") from error
    except Exception as error:  # damaged headers raise anything, tokenize.TokenError included
        raise InputError(
            f"{path} is not a readable camera npz ({error})",
            hint="expected the IDR convention: world_mat_i and scale_mat_i arrays in an npz",
        ) from error


def _matrix(
    mats: dict[str, NDArray], name: str, path: Path, default: NDArray | None = None
) -> NDArray:
    value = mats.get(name, default)
    if value is None or value.shape not in ((4, 4), (3, 4)):
        got = "nothing" if value is None else f"shape {value.shape}"
        raise InputError(f"{path}: expected {name} of shape (4, 4), got {got}")
    if value.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected {name} to hold numbers, got {value.dtype}")
    matrix = np.eye(4)
    matrix[: value.shape[0]] = value
    if not np.isfinite(matrix).all():
        raise InputError(f"{path}: {name} holds values that are not finite")
    return matrix
