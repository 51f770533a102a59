"""The principal point is freed where the observations determine it, and only there."""

import copy
from itertools import pairwise

import numpy as np
import pycolmap
import pytest

from pipeline.progress import NullProgress
from pipeline.sfm.adjustment import adjust, robust_sigma_px, squared_residuals_px, tail_scale_px
from pipeline.sfm.calibration import Calibration, calibrate
from pipeline.sfm.colmap import convert_camera, quiet, registered_ids
from pipeline.sfm.config import SfmConfig

WIDTH, HEIGHT, FOCAL = 1000, 800, 1200.0


def _true_model(
    offset_px: tuple[float, float],
    k1: float = -0.08,
    views: int = 12,
    points: int = 400,
    noise_px: float = 0.3,
) -> pycolmap.Reconstruction:
    quiet()
    pycolmap.set_random_seed(4)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, views
    options.num_points3D = points
    options.num_points2D_without_point3D = 0
    options.camera_width, options.camera_height = WIDTH, HEIGHT
    options.camera_model_id = pycolmap.CameraModelId.SIMPLE_RADIAL
    options.camera_params = [FOCAL, WIDTH / 2 + offset_px[0], HEIGHT / 2 + offset_px[1], k1]
    model = pycolmap.synthesize_dataset(options)
    noise = pycolmap.SyntheticNoiseOptions()
    noise.point2D_stddev = noise_px
    pycolmap.synthesize_noise(noise, model)
    return model


def _as_mapped(true: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    """What mapping leaves: everything adjusted with the principal point at the centre."""
    model = copy.deepcopy(true)
    for camera in model.cameras.values():
        convert_camera(camera, "SIMPLE_RADIAL")
        camera.principal_point_x, camera.principal_point_y = WIDTH / 2, HEIGHT / 2
    adjust(model, 10.0, refine_principal_point=False)
    return model


def _calibrate(
    true: pycolmap.Reconstruction, **options: object
) -> tuple[pycolmap.Reconstruction, Calibration]:
    config = SfmConfig.model_validate({"threads": 2, **options})
    return calibrate(_as_mapped(true), config, NullProgress())


def _offset(model: pycolmap.Reconstruction) -> np.ndarray:
    camera = next(iter(model.cameras.values()))
    return np.array([camera.principal_point_x - WIDTH / 2, camera.principal_point_y - HEIGHT / 2])


def _rotation_errors_deg(
    model: pycolmap.Reconstruction, true: pycolmap.Reconstruction
) -> np.ndarray:
    """Relative rotations of view pairs: free of any alignment."""
    ids = registered_ids(true)
    errors = []
    for a, b in pairwise(ids):
        found, exact = (
            (m.image(b).cam_from_world() * m.image(a).cam_from_world().inverse()).rotation.matrix()
            for m in (model, true)
        )
        errors.append(np.degrees(np.arccos(np.clip((np.trace(found.T @ exact) - 1) / 2, -1, 1))))
    return np.array(errors)


def test_an_offset_is_found_and_rotations_mend() -> None:
    true = _true_model((22.0, -15.0))
    mapped = _as_mapped(true)
    model, report = _calibrate(true)
    assert report.chosen.principal_point
    np.testing.assert_allclose(_offset(model), [22.0, -15.0], atol=1.5)
    assert (
        _rotation_errors_deg(model, true).mean() < 0.5 * _rotation_errors_deg(mapped, true).mean()
    )
    assert report.after_median_px < report.before_median_px
    point = report.principal_points[0]
    assert np.abs(np.array(point.offset_px) - [22.0, -15.0]).max() < 4 * max(point.sigma_px)


def test_a_centred_point_stays_at_the_centre() -> None:
    model, report = _calibrate(_true_model((0.0, 0.0)))
    assert not report.chosen.principal_point
    np.testing.assert_array_equal(_offset(model), [0.0, 0.0])
    assert "kept at the image centre" in report.rationale
    assert 0 < report.principal_points[0].rotation_sigma_deg < 0.5


def test_distortion_is_chosen_where_there_is_some() -> None:
    _, with_distortion = _calibrate(_true_model((22.0, -15.0)))
    _, without = _calibrate(_true_model((22.0, -15.0), k1=0.0))
    assert with_distortion.chosen.model in ("SIMPLE_RADIAL", "RADIAL")
    assert without.chosen.model == "SIMPLE_PINHOLE"


def test_weak_observations_draw_the_point_toward_the_centre() -> None:
    strong = _true_model((30.0, -20.0))
    weak = _true_model((30.0, -20.0), views=4, points=60, noise_px=1.5)
    _, report_strong = _calibrate(strong, self_calibrate=True)
    _, report_weak = _calibrate(weak, self_calibrate=True)
    for report, least in ((report_strong, 0.99), (report_weak, 0.0)):
        point = report.principal_points[0]
        assert point.free_offset_px is not None
        kept = np.linalg.norm(point.offset_px) / np.linalg.norm(point.free_offset_px)
        assert least < kept < 1.0
    assert max(report_weak.principal_points[0].sigma_px) > 3 * max(
        report_strong.principal_points[0].sigma_px
    )
    drawn = report_weak.principal_points[0]
    assert np.linalg.norm(drawn.offset_px) < 0.9 * np.linalg.norm(drawn.free_offset_px or 0)


def test_options_decide_over_evidence() -> None:
    true = _true_model((22.0, -15.0))
    model, report = _calibrate(true, self_calibrate=False, camera_model="RADIAL")
    assert len(report.candidates) == 1
    assert report.chosen.model == "RADIAL"
    np.testing.assert_array_equal(_offset(model), [0.0, 0.0])
    model, report = _calibrate(true, self_calibrate=True, camera_model="SIMPLE_RADIAL")
    np.testing.assert_allclose(_offset(model), [22.0, -15.0], atol=1.5)


def test_the_input_model_is_left_alone() -> None:
    mapped = _as_mapped(_true_model((22.0, -15.0)))
    before = squared_residuals_px(mapped)
    calibrate(mapped, SfmConfig(threads=2), NullProgress())
    np.testing.assert_array_equal(squared_residuals_px(mapped), before)


def test_residuals_have_the_noise_that_was_put_in() -> None:
    true = _true_model((0.0, 0.0), noise_px=0.4)
    assert robust_sigma_px(squared_residuals_px(true)) == pytest.approx(0.4, rel=0.03)


def _with_gross_errors(true: pycolmap.Reconstruction, seed: int) -> pycolmap.Reconstruction:
    """Six of ten observations err by 0.15 px, the others by ten times as much."""
    rng = np.random.default_rng(seed)
    model = copy.deepcopy(true)
    for image_id in registered_ids(model):
        for point in model.image(image_id).points2D:
            sigma_px = 0.15 if rng.random() < 0.6 else 1.5
            point.xy = np.asarray(point.xy) + rng.normal(size=2) * sigma_px
    return model


def test_the_loss_fits_the_tails_of_the_errors() -> None:
    rng = np.random.default_rng(0)
    gaussian = (rng.normal(size=(20_000, 2)) ** 2).sum(axis=1) * 0.3**2
    assert tail_scale_px(gaussian) > 4 * 0.3
    heavy = gaussian / (rng.chisquare(2, size=20_000) / 2)
    assert tail_scale_px(heavy) == pytest.approx(np.sqrt(2) * 0.3, rel=0.05)
    assert tail_scale_px(np.append(heavy, np.inf)) == pytest.approx(tail_scale_px(heavy))
    assert 0 < tail_scale_px(np.zeros(10)) <= 0.1


def test_gross_errors_cost_less_with_a_loss_that_fits_the_errors() -> None:
    true = _true_model((22.0, -15.0), noise_px=0.0)
    fitting, fixed = [], []
    for seed in range(2):
        noisy = _with_gross_errors(true, seed)
        found, report = _calibrate(noisy, camera_model="SIMPLE_RADIAL", self_calibrate=True)
        wide = _as_mapped(noisy)
        adjust(wide, report.loss_scale_px, refine_principal_point=True)
        fitting.append(_rotation_errors_deg(found, true).mean())
        fixed.append(_rotation_errors_deg(wide, true).mean())
    assert sum(fitting) < 0.9 * sum(fixed)


def test_covariances_are_those_of_repeated_noise() -> None:
    """The formal standard deviation of the principal point against its spread over noise draws."""
    found, formal = [], []
    for seed in range(12):
        pycolmap.set_random_seed(4)
        model = _true_model((10.0, 5.0), views=8, points=150, noise_px=0.0)
        pycolmap.set_random_seed(100 + seed)
        noise = pycolmap.SyntheticNoiseOptions()
        noise.point2D_stddev = 0.5
        pycolmap.synthesize_noise(noise, model)
        adjusted = adjust(model, 1.0, True, with_covariance=True)
        found.append(_offset(model))
        covariance = next(iter(adjusted.covariance.values()))
        formal.append(np.sqrt(np.diag(covariance))[1:3])
    spread = np.std(found, axis=0, ddof=1)
    ratio = spread / np.mean(formal, axis=0)
    assert (ratio > 0.5).all()
    assert (ratio < 2.0).all()


def test_points_behind_a_camera_do_not_spoil_the_comparison() -> None:
    mapped = _as_mapped(_true_model((22.0, -15.0)))
    for point_id in sorted(mapped.points3D)[:5]:
        mapped.points3D[point_id].xyz *= -50.0
    assert not np.isfinite(squared_residuals_px(mapped)).all()
    _, report = calibrate(mapped, SfmConfig(threads=2), NullProgress())
    assert np.isfinite([candidate.score for candidate in report.candidates]).all()
    assert report.chosen.principal_point
