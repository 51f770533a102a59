"""SIFT features of every photo, inside the masks where there are masks."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray
from PIL import Image

from pipeline.imaging.records import PhotoRecord
from pipeline.progress import Progress
from pipeline.sfm.config import SfmConfig


@dataclass(frozen=True)
class Features:
    """Features of one photo.

    Attributes:
        keypoints: (F, 4) float32 x, y, scale, orientation; pixels in COLMAP's convention.
        descriptors: (F, D) uint8: 128 numbers of SIFT, or the bytes of float32 numbers.
    """

    keypoints: NDArray[np.float32]
    descriptors: NDArray[np.uint8]


def extract_features(
    database_path: Path,
    ingest_dir: Path,
    photos: list[PhotoRecord],
    image_ids: dict[str, int],
    masked: bool,
    config: SfmConfig,
    progress: Progress,
) -> dict[str, int]:
    """Extract what the database lacks, one photo a thread.

    Args:
        masked: keep features inside the masks only, of photos that have one.

    Returns:
        Number of features by file name.
    """
    local = threading.local()
    in_colour = extraction_options(config).requires_rgb()

    def extract(photo: PhotoRecord) -> Features:
        if not hasattr(local, "extractor"):
            local.extractor = _extractor(config)
        return _extract_one(local.extractor, ingest_dir, photo, masked, in_colour)

    counts = {}
    with (
        pycolmap.Database.open(str(database_path)) as database,
        ThreadPoolExecutor(1 if uses_gpu(config) else config.threads) as pool,
    ):
        missing = {
            name: pool.submit(extract, photo)
            for photo in photos
            if not database.exists_descriptors(image_ids[name := file_name(photo)])
        }
        for done, photo in enumerate(photos, start=1):
            name = file_name(photo)
            if name in missing:
                _write(database, image_ids[name], missing.pop(name).result(), config)
            counts[name] = database.num_keypoints_for_image(image_ids[name])
            progress.advance("features", done, len(photos), features=counts[name])
    return counts


def file_name(photo: PhotoRecord) -> str:
    """The photo's name in the database: its file name under `images/`."""
    return Path(photo.file or "").name


def uses_gpu(config: SfmConfig) -> bool:
    """Whether features and matches are made with CUDA."""
    return config.device != "cpu" and bool(pycolmap.has_cuda)


def colmap_device(config: SfmConfig) -> pycolmap.Device:
    """The same in COLMAP's words."""
    return pycolmap.Device.cuda if uses_gpu(config) else pycolmap.Device.cpu


def extraction_options(config: SfmConfig) -> pycolmap.FeatureExtractionOptions:
    """COLMAP's options for the features asked for."""
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = 1
    options.use_gpu = uses_gpu(config)
    if config.features == "aliked":
        options.type = pycolmap.FeatureExtractorType.ALIKED_N16ROT
    else:
        options.sift.max_num_features = config.max_features
    return options


def _extractor(config: SfmConfig) -> pycolmap.FeatureExtractor:
    return pycolmap.FeatureExtractor.create(extraction_options(config), colmap_device(config))


def _extract_one(
    extractor: pycolmap.FeatureExtractor,
    ingest_dir: Path,
    photo: PhotoRecord,
    masked: bool,
    in_colour: bool = False,
) -> Features:
    with Image.open(ingest_dir / str(photo.file)) as image:
        bitmap = pycolmap.Bitmap.from_array(np.asarray(image.convert("RGB")))
    keypoints, descriptors = extractor.extract(bitmap if in_colour else bitmap.clone_as_grey())
    xyso = pycolmap.keypoints_to_matrix(keypoints)
    described = np.asarray(descriptors.data)
    if masked and photo.mask is not None:
        with Image.open(ingest_dir / photo.mask) as mask_image:
            mask = np.asarray(mask_image)
        # COLMAP's pixel (column, row) covers [column, column + 1)
        columns = np.clip(xyso[:, 0].astype(int), 0, mask.shape[1] - 1)
        rows = np.clip(xyso[:, 1].astype(int), 0, mask.shape[0] - 1)
        inside = mask[rows, columns] > 127
        xyso, described = xyso[inside], described[inside]
    return Features(xyso, described)


def _write(
    database: pycolmap.Database, image_id: int, features: Features, config: SfmConfig
) -> None:
    descriptors = pycolmap.FeatureDescriptors()
    descriptors.type = extraction_options(config).type
    descriptors.data = features.descriptors
    if not database.exists_keypoints(image_id):
        database.write_keypoints(image_id, features.keypoints)
    database.write_descriptors(image_id, descriptors)
