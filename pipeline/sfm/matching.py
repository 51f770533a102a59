"""Matching and geometric verification, tile by tile so that progress is seen."""

from itertools import groupby
from pathlib import Path

import pycolmap

from pipeline.errors import InputError
from pipeline.progress import Progress
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.features import colmap_device, extraction_options, uses_gpu
from pipeline.sfm.pairs import Pair, tile_of


def match_pairs(
    database_path: Path,
    names: list[str],
    pairs: list[Pair],
    work: Path,
    config: SfmConfig,
    seed: int,
    progress: Progress,
) -> None:
    """Match `pairs` of positions in `names` and verify them; pairs already there are skipped.

    Args:
        work: folder for the list of pairs that COLMAP reads.
    """
    list_path = work / "pairs.txt"
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = str(list_path)
    done = 0
    for _, tile in groupby(pairs, key=tile_of):
        block = list(tile)
        list_path.write_text("".join(f"{names[i]} {names[j]}\n" for i, j in block))
        pycolmap.match_image_pairs(
            str(database_path),
            matching_options=matching_options(config),
            pairing_options=pairing,
            verification_options=_verification(config, seed),
            device=colmap_device(config),
        )
        done += len(block)
        progress.advance("matching", done, len(pairs))
    list_path.unlink(missing_ok=True)


def matching_options(config: SfmConfig) -> pycolmap.FeatureMatchingOptions:
    """COLMAP's options for the matcher asked for."""
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = config.threads
    options.use_gpu = uses_gpu(config)
    name = f"{config.features}_{config.matcher.replace('_', '')}".upper()
    options.type = getattr(pycolmap.FeatureMatcherType, name)
    return options


def require_matcher(config: SfmConfig) -> None:
    """Refuse a device and learned features and matchers that this installation cannot run.

    Raises:
        InputError: pycolmap was built without CUDA or ONNX, or a model file is missing.
    """
    if config.device == "cuda" and not uses_gpu(config):
        raise InputError(
            "sfm.device=cuda cannot run here: this pycolmap was built without CUDA",
            hint="install pycolmap-cuda12 in its place, or leave sfm.device at auto",
        )
    if (config.features, config.matcher) == ("sift", "brute_force") and not uses_gpu(config):
        return
    try:
        pycolmap.FeatureExtractor.create(extraction_options(config), colmap_device(config))
        pycolmap.FeatureMatcher.create(matching_options(config), colmap_device(config))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"sfm.features={config.features} with sfm.matcher={config.matcher} cannot run here:"
            f" {error}",
            hint="install a pycolmap that was built with ONNX and give it the model files, or use"
            " sift and brute_force",
        ) from error


def _verification(config: SfmConfig, seed: int) -> pycolmap.TwoViewGeometryOptions:
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers = config.min_inliers
    options.ransac.random_seed = seed
    return options
