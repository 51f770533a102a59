"""The evaluation of MobileBrick (toy bricks with exact models); lengths in metres.

1. The true mesh's vertices are laid onto the predicted ones by ICP without scale (within 2 cm, at
   most 10 steps, from the identity). Only where more than 99% of them find a partner is the
   prediction moved by the inverse.
2. The prediction is cropped by the scene's visibility grid; the truth never.
3. As many Poisson-disk samples of both; shares nearer than 2.5 and 5 mm (accuracy, recall, F1);
   Chamfer distance: the *sum* of both mean distances.

Source: Li et al., "MobileBrick: building LEGO for 3D reconstruction on mobile devices", CVPR 2023,
and its public evaluation.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pipeline.errors import InputError
from pipeline.formats.matches import read_npy_object
from pipeline.geometry.similarity import Similarity
from pipeline.metrics.clouds import LET_CAMERAS_ALIGN, Prediction, load_prediction
from pipeline.metrics.icp import Registration, icp
from pipeline.metrics.poisson_disk import poisson_disk_samples

ICP_DISTANCE_M, ICP_STEPS = 0.02, 10
MIN_FITNESS = 0.99
THRESHOLDS_M = (0.0025, 0.005)
SAMPLES = 100_000


@dataclass(frozen=True)
class VisibilityGrid:
    """Where the scene's photos look.

    Attributes:
        mask: (X, Y, Z) bool.
        voxel: edge of a voxel, m.
        origin: (3,) position of voxel (0, 0, 0).
    """

    mask: NDArray
    voxel: float
    origin: NDArray

    def holds(self, points: NDArray) -> NDArray:
        """Whether each point (P, 3) lies in a visible voxel; the nearest voxel counts."""
        index = np.round((points - self.origin) / self.voxel).astype(np.int64)
        inside = ((index >= 0) & (index < self.mask.shape)).all(axis=1)
        visible = np.zeros(len(points), dtype=bool)
        visible[inside] = self.mask[tuple(index[inside].T)]
        return visible


@dataclass(frozen=True)
class BrickReference:
    """One scene's truth."""

    mesh: Prediction
    visibility: VisibilityGrid


@dataclass(frozen=True)
class BrickErrors:
    """Result for one scene.

    Attributes:
        registration: of the true vertices onto the predicted ones.
        applied: whether its inverse moved the prediction.
        cropped: the prediction as it was measured; `faces` None where no triangle was left.
        accuracy_m: (A,) distances prediction → truth.
        recall_m: (R,) distances truth → prediction.
    """

    registration: Registration
    applied: bool
    cropped: Prediction
    accuracy_m: NDArray
    recall_m: NDArray

    @property
    def chamfer_m(self) -> float:
        """Sum of both mean distances."""
        return float(self.accuracy_m.mean() + self.recall_m.mean())

    def rates(self, threshold_m: float) -> tuple[float, float, float]:
        """Accuracy, recall and F1 in [0, 1]."""
        accuracy = float((self.accuracy_m < threshold_m).mean())
        recall = float((self.recall_m < threshold_m).mean())
        both = accuracy + recall
        return accuracy, recall, 2 * accuracy * recall / both if both > 0 else 0.0


def load_brick_reference(folder: Path) -> BrickReference:
    """Read `mesh/gt_mesh.ply` and `visibility_mask.npy` of a scene's folder.

    Raises:
        InputError: a file is missing or holds something else.
    """
    mesh_path, grid_path = folder / "mesh" / "gt_mesh.ply", folder / "visibility_mask.npy"
    for path in (mesh_path, grid_path):
        if not path.is_file():
            raise InputError(
                f"no file {path}: the MobileBrick evaluation needs it",
                hint="give the scene's folder, with mesh/gt_mesh.ply and visibility_mask.npy",
            )
    content = read_npy_object(grid_path)
    try:
        shape = tuple(int(n) for n in np.asarray(content["resolutions"]).reshape(-1))
        grid = VisibilityGrid(
            mask=np.asarray(content["mask"]).reshape(shape) != 0,
            voxel=float(content["voxel_size"]),
            origin=np.asarray(content["min_pts"], dtype=np.float64).reshape(3),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(f"{grid_path} is not a visibility grid ({error})") from error
    return BrickReference(load_prediction(mesh_path, needs_faces=True), grid)


def evaluate_mobilebrick(
    prediction: Prediction, reference: BrickReference, samples: int = SAMPLES, seed: int = 0
) -> BrickErrors:
    """Measure a mesh in metres against one scene.

    Args:
        samples: points on each surface; the Chamfer distance depends on it.
        seed: of the samples.

    Raises:
        InputError: nothing is left of the prediction after cropping.
    """
    registration = icp(
        reference.mesh.points, prediction.points, ICP_DISTANCE_M, iterations=ICP_STEPS
    )
    applied = registration.fitness > MIN_FITNESS
    back = registration.similarity.inverse() if applied else Similarity.identity()
    cropped = crop(prediction.moved(back), reference.visibility)
    rng = np.random.default_rng(seed)
    true_faces = reference.mesh.faces
    if true_faces is None:
        raise InputError(f"{reference.mesh.name} has no triangles")
    on_true = poisson_disk_samples(reference.mesh.points, true_faces, samples, rng)
    if cropped.faces is not None:
        on_predicted = poisson_disk_samples(cropped.points, cropped.faces, samples, rng)
    else:
        on_predicted = rng.permutation(cropped.points)[:samples]
    return BrickErrors(
        registration=registration,
        applied=applied,
        cropped=cropped,
        accuracy_m=cKDTree(on_true).query(on_predicted, workers=-1)[0],
        recall_m=cKDTree(on_predicted).query(on_true, workers=-1)[0],
    )


def crop(prediction: Prediction, grid: VisibilityGrid) -> Prediction:
    """The visible vertices, and the triangles all of whose corners are.

    Raises:
        InputError: none is.
    """
    visible = grid.holds(prediction.points)
    if not visible.any():
        raise InputError(
            f"no vertex of {prediction.name} lies where the scene's photos look: the frames do "
            "not overlap",
            hint=f"the mesh must be in MobileBrick's frame, in metres: {LET_CAMERAS_ALIGN}",
        )
    faces = prediction.faces
    if faces is not None:
        faces = (np.cumsum(visible) - 1)[faces[visible[faces].all(axis=1)]]
    return Prediction(
        prediction.points[visible],
        faces if faces is not None and len(faces) else None,
        prediction.name,
    )
