"""Incremental mapping: verified matches to cameras and points."""

from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import pycolmap

from pipeline.progress import Progress
from pipeline.sfm.config import SfmConfig

MIN_VIEWS = 3
SPARSE_SHARE = 0.5
"""Below this share of registered photos the mapping is tried again with relaxed options."""


@dataclass(frozen=True)
class Mapping:
    """Outcome of the mapping.

    Attributes:
        models: disjoint or barely overlapping reconstructions, most registered photos first.
        relaxed: the options had to be relaxed to get there.
    """

    models: list[pycolmap.Reconstruction]
    relaxed: bool


def map_incrementally(
    database_path: Path,
    images_dir: Path,
    work: Path,
    photo_count: int,
    config: SfmConfig,
    seed: int,
    progress: Progress,
    start: int | None = None,
    only_relaxed: bool = False,
) -> Mapping:
    """Map with COLMAP's options, and where that finds no or a poor model, with relaxed ones.

    Args:
        start: image id to begin with, instead of the pair that COLMAP likes best.
        only_relaxed: COLMAP's own options are known to fail.

    Returns:
        Models of at least three views; none where nothing could be reconstructed.
    """
    attempts = []
    for relaxed in (True,) if only_relaxed else (False, True):
        folder = work / ("mapping_relaxed" if relaxed else "mapping")
        rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        found = pycolmap.incremental_mapping(
            str(database_path),
            str(images_dir),
            str(folder),
            options=_options(config, seed, relaxed, start),
            **_callbacks(photo_count, progress),
        )
        rmtree(folder)
        models = [m for m in found.values() if m.num_reg_images() >= MIN_VIEWS]
        models.sort(key=lambda m: (m.num_reg_images(), m.num_points3D()), reverse=True)
        attempts.append(Mapping(models, relaxed))
        if _largest(models) >= SPARSE_SHARE * photo_count:
            break
    return max(attempts, key=lambda attempt: _largest(attempt.models))


def _largest(models: list[pycolmap.Reconstruction]) -> int:
    return models[0].num_reg_images() if models else 0


def _options(
    config: SfmConfig, seed: int, relaxed: bool, start: int | None
) -> pycolmap.IncrementalPipelineOptions:
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1  # the same photos must give the same model
    options.min_model_size = MIN_VIEWS
    options.min_num_matches = config.min_inliers
    options.random_seed = seed
    options.mapper.random_seed = seed
    options.triangulation.random_seed = seed
    if start is not None:
        options.init_image_id1 = start
    if relaxed:
        options.mapper.init_min_num_inliers = 30
        options.mapper.init_min_tri_angle = 4.0
        options.mapper.abs_pose_min_num_inliers = 15
        options.mapper.abs_pose_min_inlier_ratio = 0.15
    return options


def _callbacks(photo_count: int, progress: Progress) -> dict:
    registered = 0

    def started() -> None:
        nonlocal registered
        registered = 2
        progress.advance("mapping", registered, photo_count)

    def one_more() -> None:
        nonlocal registered
        registered = min(registered + 1, photo_count)
        progress.advance("mapping", registered, photo_count)

    return {"initial_image_pair_callback": started, "next_image_callback": one_more}
