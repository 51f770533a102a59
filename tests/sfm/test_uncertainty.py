"""The expected rotation errors are those that repeated noise really gives."""

import copy

import numpy as np
import pycolmap
import pytest

from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.similarity import umeyama
from pipeline.sfm.adjustment import adjust
from pipeline.sfm.colmap import c2w_of, quiet, registered_ids
from pipeline.sfm.principal_point import OVERDISPERSION
from pipeline.sfm.uncertainty import rotation_uncertainty

VIEWS, NOISE_PX = 8, 0.5


def _true_model() -> pycolmap.Reconstruction:
    quiet()
    pycolmap.set_random_seed(3)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, VIEWS
    options.num_points3D, options.num_points2D_without_point3D = 150, 0
    options.camera_width, options.camera_height = 1000, 800
    options.camera_model_id = pycolmap.CameraModelId.SIMPLE_RADIAL
    options.camera_params = [1200.0, 500.0, 400.0, -0.05]
    return pycolmap.synthesize_dataset(options)


def _noisy(true: pycolmap.Reconstruction, seed: int) -> pycolmap.Reconstruction:
    """Observations with noise, everything adjusted to them."""
    model = copy.deepcopy(true)
    pycolmap.set_random_seed(seed)
    noise = pycolmap.SyntheticNoiseOptions()
    noise.point2D_stddev = NOISE_PX
    pycolmap.synthesize_noise(noise, model)
    adjust(model, 20.0, refine_principal_point=True)
    return model


def _poses(model: pycolmap.Reconstruction) -> np.ndarray:
    return np.stack([c2w_of(model.image(i)) for i in registered_ids(model)])


def test_the_figure_is_the_error_that_repetition_shows() -> None:
    true = _true_model()
    models = [_noisy(true, seed) for seed in range(40)]
    squared = []
    for model in models:
        c2w = _poses(model)
        aligned = umeyama(c2w[:, :3, 3], _poses(true)[:, :3, 3]).apply_c2w(c2w)
        squared.append(rotation_angles_deg(aligned[:, :3, :3], _poses(true)[:, :3, :3]) ** 2)
    measured = np.sqrt(np.mean(squared, axis=0))
    found = rotation_uncertainty(models[0])
    assert found is not None
    expected = np.array([found.by_image[i] for i in registered_ids(models[0])])
    # the overdispersion is for what real photos add to independent noise
    assert np.mean(expected / measured) == pytest.approx(np.sqrt(OVERDISPERSION), rel=0.15)
    np.testing.assert_allclose(expected / np.sqrt(OVERDISPERSION), measured, rtol=0.35)
    assert found.median_deg == pytest.approx(float(np.median(expected)))
    assert found.common_deg < found.median_deg
    assert found.scatter_median_deg < found.median_deg


def test_more_noise_is_more_uncertain() -> None:
    quiet_model, true = _noisy(_true_model(), 1), _true_model()
    loud = copy.deepcopy(true)
    noise = pycolmap.SyntheticNoiseOptions()
    noise.point2D_stddev = 4 * NOISE_PX
    pycolmap.synthesize_noise(noise, loud)
    adjust(loud, 20.0, refine_principal_point=True)
    a, b = rotation_uncertainty(quiet_model), rotation_uncertainty(loud)
    assert a is not None
    assert b is not None
    assert b.median_deg > 2.5 * a.median_deg


def test_a_point_behind_a_camera_spoils_nothing() -> None:
    model = _noisy(_true_model(), 1)
    before = rotation_uncertainty(model)
    pose = model.image(registered_ids(model)[0]).cam_from_world()
    point = next(
        p
        for p in model.points3D.values()
        if p.track.length() > 3
        and registered_ids(model)[0] in {e.image_id for e in p.track.elements}
    )
    point.xyz = pose.inverse() * np.array([0.1, 0.1, -2.0])
    after = rotation_uncertainty(model)
    assert before is not None
    assert after is not None
    assert 0 < after.median_deg < 1.5 * before.median_deg


def test_two_views_say_nothing() -> None:
    model = _true_model()
    for image_id in registered_ids(model)[2:]:
        model.deregister_frame(model.image(image_id).frame_id)
    assert rotation_uncertainty(model) is None
