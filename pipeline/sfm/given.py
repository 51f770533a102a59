"""Cameras that the user brought: matched with the photos, tested against them, triangulated.

The output stays in the user's frame: with fixed poses nothing moves; after an adjustment the
cameras are laid back onto the given centres.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.posed import PosedCamera, PosedCameras, check_camera, scaled
from pipeline.geometry.cameras import invert_pose
from pipeline.geometry.epipolar import fundamental_matrix, symmetric_epipolar_distance_px
from pipeline.geometry.similarity import Similarity, umeyama
from pipeline.imaging.records import IngestRecord, PhotoRecord
from pipeline.sfm.adjustment import adjust
from pipeline.sfm.colmap import registered_ids
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.consistency import STRONG_MATCHES
from pipeline.sfm.features import file_name
from pipeline.sfm.twoview import TwoViewTable

MIN_VIEWS = 3
MAX_ASPECT_CHANGE = 0.01
ROUGH_ANGLE = 0.03
"""Normalised distance (1.7°) below which a match agrees with roughly right poses."""
AGREE_SHARE = 0.5
MISREAD_SHARE = 0.7
"""Another reading of the poses that agrees with this share of the matches is the right one."""
DEFAULT_THRESHOLD_PX = 4.0
LOOSENESS = 3.0
REFINE_ROUNDS = 2
REFINE_LOSS_PX = 1.0


@dataclass(frozen=True)
class GivenCameras:
    """The user's cameras for the photos in use.

    Attributes:
        by_file: camera of each photo by its file name under `images/`, at that file's size.
        missing: photos without a camera.
        source: where they are from.
        unit: of their frame: `m`, `mm` or `unknown`.
        scale_mat: (4, 4) region of interest that came with them.
        up: unit (3,) in their frame, where the format fixes it.
    """

    by_file: dict[str, PosedCamera]
    missing: list[str]
    source: str
    unit: str
    scale_mat: NDArray[np.float64] | None
    up: tuple[float, float, float] | None


def assign_cameras(posed: PosedCameras, ingest: IngestRecord, config: SfmConfig) -> GivenCameras:
    """Find every photo's camera: by its path's end, its name, or its stem; else by position.

    Raises:
        InputError: photos without a camera (unless options say to go on), names that fit several
            photos, or sizes that do not fit.
    """
    photos = ingest.used
    found = _by_name(posed, photos) if posed.named else _by_position(posed, ingest)
    missing = [photo.name for photo in photos if photo.name not in found]
    if missing and (config.missing_cameras == "refuse" or len(found) < MIN_VIEWS):
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if missing[5:] else "")
        names = ", ".join(camera.name for camera in posed.cameras[:3])
        raise InputError(
            f"{posed.source} has no camera for {len(missing)} of {len(photos)} photos: {shown}"
            f" (it names {names}, …)",
            hint="add their cameras or take these photos away; sfm.missing_cameras=skip leaves"
            f" them out, as long as {MIN_VIEWS} remain",
        )
    by_file = {
        file_name(photo): _at_size(found[photo.name], photo, posed.source)
        for photo in photos
        if photo.name in found
    }
    unit = config.scale.given_unit
    return GivenCameras(
        by_file,
        missing,
        posed.source,
        (posed.unit or "unknown") if unit == "auto" else unit,
        posed.scale_mat,
        posed.up,
    )


def check_convention(given: GivenCameras, image_ids: dict[str, int], table: TwoViewTable) -> float:
    """Share of the strong pairs' matches that roughly agree with the given poses.

    Raises:
        InputError: hardly any; says so if they agree under another convention of axes.
    """
    agreement = {name: _agreement(given, image_ids, table, turn) for name, turn in READINGS.items()}
    share = agreement.pop(AS_GIVEN)
    if not np.isfinite(share) or share >= AGREE_SHARE:
        return share
    best = max(agreement, key=lambda name: agreement[name])
    if agreement[best] >= MISREAD_SHARE:
        raise InputError(
            f"{given.source}: only {share:.0%} of the matches between the photos agree with these"
            f" poses, but {agreement[best]:.0%} do if they are read as {best}",
            hint="the file is in another convention than its format demands: convert it first",
        )
    raise InputError(
        f"{given.source}: only {share:.0%} of the matches between the photos agree with these"
        " cameras",
        hint="check that every camera belongs to the photo of its name, and that poses are"
        " camera-to-world where the format demands it",
    )


def triangulate_given(
    database: Path,
    images_dir: Path,
    work: Path,
    given: GivenCameras,
    image_ids: dict[str, int],
    config: SfmConfig,
) -> tuple[pycolmap.Reconstruction, Similarity]:
    """Points for the given cameras, and the cameras refined if the options say so.

    Returns:
        The model in the user's frame, and the similarity that laid it back there.

    Raises:
        InputError: no point could be triangulated.
    """
    model = _posed_model(database, given, image_ids)
    centres = {i: model.image(i).projection_center() for i in model.reg_image_ids()}
    model = _triangulate(model, database, images_dir, work, config, LOOSENESS)
    if model.num_points3D() == 0:
        raise InputError(
            f"{given.source}: not one point could be triangulated with these cameras",
            hint="poses or focal lengths are too far off; leave --cameras out to compute them",
        )
    if config.refine_given == "none":
        return model, Similarity.identity()
    for _ in range(REFINE_ROUNDS):
        adjust(
            model,
            REFINE_LOSS_PX,
            False,
            fixed_intrinsics=config.refine_given == "poses",
        )
        model = _triangulate(model, database, images_dir, work, config, 1.0)
    return model, _lay_back(model, centres)


def _lay_back(
    model: pycolmap.Reconstruction, centres: dict[int, NDArray[np.float64]]
) -> Similarity:
    ids = registered_ids(model)
    refined = np.stack([model.image(i).projection_center() for i in ids])
    back = umeyama(refined, np.stack([centres[i] for i in ids]))
    model.transform(pycolmap.Sim3d(back.matrix[:3]))
    return back


def _by_name(posed: PosedCameras, photos: list[PhotoRecord]) -> dict[str, PosedCamera]:
    exact: dict[str, list[PosedCamera]] = {}
    loose: dict[str, list[PosedCamera]] = {}
    for camera in posed.cameras:
        last = Path(camera.name).name
        exact.setdefault(last, []).append(camera)
        for key in {last.lower(), Path(last).stem.lower()}:
            loose.setdefault(key, []).append(camera)
    found = {}
    for photo in photos:
        stem = Path(photo.name).stem.lower()
        fits = exact.get(photo.name) or loose.get(photo.name.lower()) or loose.get(stem) or []
        if len(fits) > 1:
            raise InputError(
                f"{posed.source}: {len(fits)} cameras fit the photo {photo.name}:"
                f" {', '.join(camera.name for camera in fits[:3])}",
                hint="photo names must be unique without their folders",
            )
        if fits:
            found[photo.name] = fits[0]
    return found


def _by_position(posed: PosedCameras, ingest: IngestRecord) -> dict[str, PosedCamera]:
    photos = sorted(ingest.photos, key=lambda photo: photo.name)
    if len(posed.cameras) != len(photos):
        raise InputError(
            f"{posed.source} has {len(posed.cameras)} cameras for {len(photos)} photos, and no"
            " image_names.json beside it says which is which",
            hint="put image_names.json, a list of photo names in the cameras' order, beside it",
        )
    return {photo.name: c for photo, c in zip(photos, posed.cameras, strict=True)}


def _at_size(camera: PosedCamera, photo: PhotoRecord, source: str) -> PosedCamera:
    """The camera for the photo's file, which may be smaller than what the camera was made for."""
    full = photo.full_size_px or (photo.width, photo.height)
    size = camera.size_px or full
    turned = abs(size[0] / size[1] * full[0] / full[1] - 1) < MAX_ASPECT_CHANGE
    if abs(size[0] / size[1] / (full[0] / full[1]) - 1) > MAX_ASPECT_CHANGE:
        raise InputError(
            f"{source}: the camera of {photo.name} is for {size[0]}×{size[1]} pixels, the upright"
            f" photo has {full[0]}×{full[1]}",
            hint="the photo was turned by its EXIF orientation, the camera was not: give photos"
            " without that tag"
            if turned
            else "give the photos that the cameras were made for",
        )
    named = PosedCamera(camera.name, camera.model, camera.params, size, camera.c2w)
    return scaled(check_camera(named, source), (photo.width, photo.height))


AS_GIVEN = "given"
_FLIP = np.diag([1.0, -1.0, -1.0, 1.0])
READINGS = {
    AS_GIVEN: lambda c2w: c2w,
    "having the other axes (OpenGL's y up, z backward against OpenCV's y down, z forward)": (
        lambda c2w: c2w @ _FLIP
    ),
    "world-to-camera": invert_pose,
    "world-to-camera with the other axes": lambda c2w: invert_pose(c2w @ _FLIP),
    "world-to-camera with the axes changed after inversion": lambda c2w: invert_pose(c2w) @ _FLIP,
}
"""Ways in which poses are commonly mistaken for camera-to-world with the right axes."""


def _agreement(
    given: GivenCameras,
    image_ids: dict[str, int],
    table: TwoViewTable,
    turn: Callable[[NDArray[np.float64]], NDArray[np.float64]],
) -> float:
    cameras = {image_ids[name]: camera for name, camera in given.by_file.items()}
    identity = np.eye(3)
    agreed, total = 0, 0
    for pair in table.pairs:
        if len(pair.features) < STRONG_MATCHES:
            continue
        if pair.image1 not in cameras or pair.image2 not in cameras:
            continue
        first, second = cameras[pair.image1], cameras[pair.image2]
        essential = fundamental_matrix(identity, turn(first.c2w), identity, turn(second.c2w))
        rays1 = _normalised(first, table.keypoints_px[pair.image1][pair.features[:, 0]])
        rays2 = _normalised(second, table.keypoints_px[pair.image2][pair.features[:, 1]])
        matches = np.concatenate([rays1, rays2], axis=1)
        distance = symmetric_epipolar_distance_px(essential, matches)
        agreed += int((distance < ROUGH_ANGLE).sum())
        total += len(distance)
    return agreed / total if total else float("nan")


def _normalised(camera: PosedCamera, xy_px: NDArray[np.float64]) -> NDArray[np.float64]:
    width, height = camera.size_px or (0, 0)
    lens = pycolmap.Camera(
        model=camera.model, width=width, height=height, params=list(camera.params)
    )
    return np.asarray(lens.cam_from_img(xy_px)).reshape(-1, 2)


def _posed_model(
    database: Path, given: GivenCameras, image_ids: dict[str, int]
) -> pycolmap.Reconstruction:
    """The given poses under the database's ids, without points."""
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(str(database)) as opened:
        images = {image.name: image for image in opened.read_all_images()}
        for camera in opened.read_all_cameras():
            model.add_camera_with_trivial_rig(camera)
    for name in sorted(given.by_file, key=lambda name: image_ids[name]):
        w2c = invert_pose(given.by_file[name].c2w)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(w2c[:3, :3]), w2c[:3, 3])
        image = pycolmap.Image(
            name=name, image_id=image_ids[name], camera_id=images[name].camera_id
        )
        model.add_image_with_trivial_frame(image, pose)
    return model


def _triangulate(
    model: pycolmap.Reconstruction,
    database: Path,
    images_dir: Path,
    work: Path,
    config: SfmConfig,
    looseness: float,
) -> pycolmap.Reconstruction:
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1  # the same photos must give the same model
    options.min_num_matches = config.min_inliers
    threshold_px = looseness * DEFAULT_THRESHOLD_PX
    options.mapper.filter_max_reproj_error = threshold_px
    options.triangulation.complete_max_reproj_error = threshold_px
    options.triangulation.merge_max_reproj_error = threshold_px
    options.triangulation.create_max_angle_error *= looseness
    options.triangulation.continue_max_angle_error *= looseness
    folder = work / "triangulated"
    folder.mkdir(parents=True, exist_ok=True)
    return pycolmap.triangulate_points(
        model, str(database), str(images_dir), str(folder), options=options
    )
