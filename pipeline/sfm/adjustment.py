"""Robust bundle adjustment, its residuals and what it leaves uncertain."""

from dataclasses import dataclass

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from pipeline.sfm.colmap import registered_ids

MEDIAN_OF_RAYLEIGH = 1.17741
"""Median length of a 2-D Gaussian residual with unit standard deviation in x and y."""
MIN_TAIL_SIGMAS, MAX_TAIL_SIGMAS = 0.5, 5.0
MIN_SCALE_PX = 0.1
"""Features are not found more exactly; a narrower loss would pick those that happen to agree."""
MAX_ITERATIONS = 100
FUNCTION_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Adjusted:
    """What an adjustment left behind; the model itself is changed in place.

    Attributes:
        squared_px: (O,) squared reprojection errors.
        parameters: number of parameters estimated, points and poses included.
        covariance: camera id → covariance of its refined parameters in the order f, cx, cy, k1, k2
            (without the fixed ones); empty where not asked for or not computable. Scaled by the
            residuals, but as if all observations erred independently.
    """

    squared_px: NDArray[np.float64]
    parameters: int
    covariance: dict[int, NDArray[np.float64]]


def squared_residuals_px(model: pycolmap.Reconstruction) -> NDArray[np.float64]:
    """Squared reprojection errors (O,) in pixels² of all observations, infinite behind a camera."""
    squared = []
    for image_id in registered_ids(model):
        image = model.image(image_id)
        observed = image.get_observation_points2D()
        if not observed:
            continue
        points = np.array([model.point3D(p.point3D_id).xyz for p in observed])
        w2c = image.cam_from_world().matrix()
        in_camera = points @ w2c[:, :3].T + w2c[:, 3]
        projected = image.camera.img_from_cam(in_camera)
        error = ((projected - np.array([p.xy for p in observed])) ** 2).sum(axis=1)
        squared.append(np.where((in_camera[:, 2] > 0) & np.isfinite(error), error, np.inf))
    return np.concatenate(squared) if squared else np.zeros(0)


def robust_sigma_px(squared_px: NDArray[np.float64]) -> float:
    """Standard deviation a coordinate in pixels, from the median error."""
    return float(np.sqrt(np.median(squared_px)) / MEDIAN_OF_RAYLEIGH) if len(squared_px) else 0.0


def tail_scale_px(squared_px: NDArray[np.float64]) -> float:
    """Scale c of the loss c² log(1 + r²/c²) that fits how the errors are distributed.

    That loss belongs to a bivariate Student distribution with c² = ν σ²; both are fitted by maximum
    likelihood, ν in closed form for every c (Lange, Little, Taylor, "Robust statistical modeling
    using the t distribution", JASA 1989). Heavy tails make c small; near Gaussian errors it ends at
    `MAX_TAIL_SIGMAS`, where the loss is least squares but for gross errors.
    """
    finite = squared_px[np.isfinite(squared_px)]
    sigma_px = robust_sigma_px(squared_px)
    if sigma_px <= 0 or not np.isfinite(sigma_px):
        return MIN_SCALE_PX

    def cost(log_c2: float) -> float:
        spread = np.log1p(finite / np.exp(log_c2)).mean()
        return float(np.log(spread) + log_c2 + spread)

    bounds = [2 * np.log(k * sigma_px) for k in (MIN_TAIL_SIGMAS, MAX_TAIL_SIGMAS)]
    found = minimize_scalar(cost, bounds=bounds, method="bounded")
    return max(float(np.exp(found.x / 2)), MIN_SCALE_PX)


def adjust(
    model: pycolmap.Reconstruction,
    loss_scale_px: float,
    refine_principal_point: bool,
    with_covariance: bool = False,
    fixed_intrinsics: bool = False,
) -> Adjusted:
    """Bundle adjustment of everything with a Cauchy loss, in place.

    Args:
        loss_scale_px: scale c of the loss c² log(1 + r²/c²).
        refine_principal_point: otherwise it stays where it is; focal length and distortion of the
            camera's model are refined.
        fixed_intrinsics: nothing of the cameras' lenses is refined.
    """
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_principal_point = refine_principal_point
    options.refine_focal_length = options.refine_extra_params = not fixed_intrinsics
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = loss_scale_px
    options.ceres.solver_options.num_threads = 1  # sums of several differ in their last digits
    options.ceres.solver_options.function_tolerance = FUNCTION_TOLERANCE
    options.ceres.solver_options.max_num_iterations = MAX_ITERATIONS
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in registered_ids(model):
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    adjuster = pycolmap.create_default_ceres_bundle_adjuster(options, config, model)
    adjuster.solve()
    squared = squared_residuals_px(model)
    free = _free_parameters(model, refine_principal_point)
    covariance = {}
    if with_covariance:
        unscaled = _camera_covariance(model, adjuster)
        variance = _error_variance(squared, loss_scale_px, free)
        covariance = {camera_id: c * variance for camera_id, c in unscaled.items()}
    return Adjusted(squared, free, covariance)


def cameras_in_use(model: pycolmap.Reconstruction) -> list[int]:
    """Ids of the cameras of the registered photos, ascending."""
    return sorted({model.image(i).camera_id for i in model.reg_image_ids()})


def _free_parameters(model: pycolmap.Reconstruction, refine_principal_point: bool) -> int:
    fixed = 0 if refine_principal_point else 2
    intrinsics = sum(len(model.cameras[c].params) - fixed for c in cameras_in_use(model))
    return 3 * model.num_points3D() + 6 * model.num_reg_images() - 7 + intrinsics


def _camera_covariance(
    model: pycolmap.Reconstruction, adjuster: pycolmap.CeresBundleAdjuster
) -> dict[int, NDArray[np.float64]]:
    # camera parameters are only there with ALL; with POSES the lookup reads foreign memory (4.2.1)
    options = pycolmap.BACovarianceOptions()
    options.params = pycolmap.BACovarianceOptionsParams.ALL
    estimate = pycolmap.estimate_ba_covariance(options, model, adjuster)
    found = {}
    for camera_id in cameras_in_use(model) if estimate is not None else []:
        matrix = estimate.get_other_params_cov(model.cameras[camera_id].params)
        if matrix is not None and np.isfinite(matrix).all() and (np.diag(matrix) > 0).all():
            found[camera_id] = np.array(matrix)
    return found


def _error_variance(squared_px: NDArray[np.float64], scale_px: float, free: int) -> float:
    """Variance factor of a robust estimate: E[ψ²]/E[w], corrected for the parameters spent.

    Source: Huber, "Robust Statistics", 1981, section 7.6, with ψ = w r and the weights w of the
    loss in place of ψ'.
    """
    weight = 1.0 / (1.0 + squared_px / scale_px**2)
    finite = np.isfinite(squared_px)
    psi_squared = (weight[finite] ** 2 * squared_px[finite]).sum() / (2 * len(squared_px))
    redundancy = max(2 * len(squared_px) - free, 1) / (2 * len(squared_px))
    return float(psi_squared / weight.mean() / redundancy)
