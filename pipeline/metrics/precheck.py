"""Whether ground truth can be used, told before anything runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.metrics.surface import ObjectSphere, check_camera_scale
from pipeline.metrics.truth import assign_truth, load_ground_truth_cameras, load_mesh


def check_truth_files(
    cameras_path: Path | None, mesh_path: Path | None, photo_names: Sequence[str] | None
) -> None:
    """Read the files as the evaluation will.

    Args:
        photo_names: of the user's photos, if known.

    Raises:
        InputError: a file that is no camera file or no mesh, cameras that are not of these photos,
            or cameras and a mesh whose scales cannot belong together.
    """
    truth = load_ground_truth_cameras(cameras_path) if cameras_path is not None else None
    mesh = load_mesh(mesh_path) if mesh_path is not None else None
    if truth is not None and photo_names is not None:
        assign_truth(truth, photo_names, sorted(photo_names))
    if truth is not None and mesh is not None:
        check_camera_scale(truth.cameras.c2w[:, :3, 3], ObjectSphere.of(np.asarray(mesh.vertices)))
