"""Matching and geometric verification, tile by tile so that progress is seen."""

from itertools import groupby
from pathlib import Path

import pycolmap

from pipeline.progress import Progress
from pipeline.sfm.config import SfmConfig
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
            matching_options=_matching(config),
            pairing_options=pairing,
            verification_options=_verification(config, seed),
            device=pycolmap.Device.cpu,
        )
        done += len(block)
        progress.advance("matching", done, len(pairs))
    list_path.unlink(missing_ok=True)


def _matching(config: SfmConfig) -> pycolmap.FeatureMatchingOptions:
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = config.threads
    options.use_gpu = False
    return options


def _verification(config: SfmConfig, seed: int) -> pycolmap.TwoViewGeometryOptions:
    options = pycolmap.TwoViewGeometryOptions()
    options.min_num_inliers = config.min_inliers
    options.ransac.random_seed = seed
    return options
