"""Small things that every use of pycolmap here shares."""

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.geometry.cameras import invert_pose

MODEL_PARAMS = {"SIMPLE_PINHOLE": 3, "SIMPLE_RADIAL": 4, "RADIAL": 5}
"""Lens models in use and their numbers of parameters: f, cx, cy, k1, k2."""


def quiet() -> None:
    """Keep COLMAP's log to errors; progress and findings are reported by us."""
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.ERROR)


def registered_ids(model: pycolmap.Reconstruction) -> list[int]:
    """Image ids of the registered photos, sorted by photo name."""
    return sorted(model.reg_image_ids(), key=lambda i: model.image(i).name)


def c2w_of(image: pycolmap.Image) -> NDArray[np.float64]:
    """Camera-to-world (4, 4) of a registered image."""
    w2c = np.eye(4)
    w2c[:3] = image.cam_from_world().matrix()
    return invert_pose(w2c)


def convert_camera(camera: pycolmap.Camera, model_name: str) -> None:
    """Change the lens model in place; focal length, centre and common coefficients stay.

    Only models with one focal length: `MODEL_PARAMS`.
    """
    focal = camera.mean_focal_length()
    old = list(camera.params)
    radial = old[3:] if camera.model_name in MODEL_PARAMS else []
    params = [focal, camera.principal_point_x, camera.principal_point_y, *radial, 0.0, 0.0]
    camera.model = getattr(pycolmap.CameraModelId, model_name)
    camera.params = params[: MODEL_PARAMS[model_name]]
