"""The COLMAP database: cameras by group, photos in the order of their names."""

import sqlite3
from pathlib import Path

import numpy as np
import pycolmap

from pipeline.formats.posed import PosedCamera
from pipeline.imaging.records import PhotoRecord

START_MODEL = "SIMPLE_RADIAL"
DEFAULT_FOCAL_FACTOR = 1.2
"""Of the longer side: COLMAP's first guess where EXIF says nothing."""


def create_database(
    path: Path,
    photos: list[PhotoRecord],
    share_cameras: bool,
    given: dict[str, PosedCamera] | None = None,
) -> dict[str, int]:
    """Write cameras and images, unless the database of an earlier attempt has them.

    Image names in the database are file names under `images/`; ids follow the order of `photos`, so
    that the same photos always give the same database.

    Args:
        given: known lenses by file name; photos without one get a camera of their own group.

    Returns:
        Image id by file name.
    """
    with pycolmap.Database.open(str(path)) as database:
        if database.num_images() != len(photos):
            database.clear_all_tables()
            _write_images(database, photos, share_cameras, given or {})
        return {image.name: image.image_id for image in database.read_all_images()}


def _write_images(
    database: pycolmap.Database,
    photos: list[PhotoRecord],
    share_cameras: bool,
    given: dict[str, PosedCamera],
) -> None:
    rigs: dict[object, tuple[int, int]] = {}
    for position, photo in enumerate(photos):
        name = Path(photo.file or "").name
        group: object = photo.camera if share_cameras else position
        if name in given:
            group = (given[name].model, given[name].params, given[name].size_px)
        if group not in rigs:
            members = [p for p in photos if p.camera == group] if share_cameras else [photo]
            camera = _known_lens(given[name]) if name in given else _guessed_lens(members)
            rigs[group] = _write_camera(database, camera)
        camera_id, rig_id = rigs[group]
        image = pycolmap.Image()
        image.name = name
        image.camera_id = camera_id
        image_id = database.write_image(image)
        frame = pycolmap.Frame()
        frame.rig_id = rig_id
        sensor = pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id)
        frame.add_data_id(pycolmap.data_t(sensor, image_id))
        database.write_frame(frame)


def _known_lens(given: PosedCamera) -> pycolmap.Camera:
    width, height = given.size_px or (0, 0)
    camera = pycolmap.Camera(
        model=given.model, width=width, height=height, params=list(given.params)
    )
    camera.has_prior_focal_length = True
    return camera


def _guessed_lens(members: list[PhotoRecord]) -> pycolmap.Camera:
    width, height = members[0].width, members[0].height
    known = [photo.focal_px for photo in members if photo.focal_px is not None]
    focal = float(np.median(known)) if known else DEFAULT_FOCAL_FACTOR * max(width, height)
    camera = pycolmap.Camera.create_from_model_name(0, START_MODEL, focal, width, height)
    camera.has_prior_focal_length = bool(known)
    return camera


def _write_camera(database: pycolmap.Database, camera: pycolmap.Camera) -> tuple[int, int]:
    camera_id = database.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id))
    return camera_id, database.write_rig(rig)


def publish_database(working: Path, published: Path) -> None:
    """Copy a closed database without free pages: equal content gives equal files."""
    connection = sqlite3.connect(working)
    try:
        connection.execute("VACUUM INTO ?", (str(published),))
    finally:
        connection.close()
