"""What can be told about the user's files before anything runs."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.errors import InputError
from pipeline.formats.case_files import camera_file, image_folder
from pipeline.imaging.config import IngestConfig
from pipeline.metrics.config import EvaluateConfig
from pipeline.sfm.config import SceneConfig, SfmConfig


def check_photos(external: Mapping[str, Path], config: IngestConfig) -> None:
    """Refuse a missing or empty folder of photos, and a missing folder of masks.

    Raises:
        InputError: says which.
    """
    from pipeline.imaging.ingest import check_photo_folder  # noqa: PLC0415  (loads OpenCV)

    if "photos" not in external:
        raise InputError("no folder of photos was given")
    check_photo_folder(external["photos"])
    masks = external.get("masks")
    if masks is not None and not masks.is_dir():
        raise InputError(f"the folder of masks {masks} does not exist", hint="check the path")


def check_cameras(external: Mapping[str, Path], config: SfmConfig) -> None:
    """Refuse cameras that cannot be, and learned matchers that are not there.

    Raises:
        InputError: says which.
    """
    if (config.features, config.matcher) != ("sift", "brute_force"):
        from pipeline.sfm.matching import require_matcher  # noqa: PLC0415  (loads pycolmap)

        require_matcher(config)
    if "cameras" not in external:
        return
    from pipeline.formats.camera_source import load_cameras  # noqa: PLC0415  (loads pycolmap)

    load_cameras(external["cameras"])


def check_case(external: Mapping[str, Path], config: SceneConfig) -> None:
    """Refuse a folder that is no case, before anything runs.

    Raises:
        InputError: says what is missing.
    """
    if "case" not in external:
        return
    from pipeline.formats.case import sorted_images  # noqa: PLC0415

    sorted_images(image_folder(external["case"]))
    camera_file(external["case"], config.case_cameras)


def check_ground_truth(external: Mapping[str, Path], config: EvaluateConfig) -> None:
    """Refuse unusable ground truth: no camera file, no mesh, or not of these photos.

    Raises:
        InputError: says which.
    """
    cameras, mesh = external.get("ground_truth"), external.get("ground_truth_mesh")
    if cameras is None and mesh is None:
        return
    from pipeline.formats.case import sorted_images  # noqa: PLC0415
    from pipeline.imaging.ingest import readable_photo_names  # noqa: PLC0415  (loads OpenCV)
    from pipeline.metrics.precheck import check_truth_files  # noqa: PLC0415  (loads trimesh)

    photos, case = external.get("photos"), external.get("case")
    names = readable_photo_names(photos) if photos else None
    if case is not None:
        names = [path.name for path in sorted_images(image_folder(case))]
    check_truth_files(cameras, mesh, names)
