"""A case made by anyone, brought into the form that the stages after it read.

Images become 8-bit RGB, cameras get one name, matches lose the object arrays' pickles; nothing is
resampled, so pixels, intrinsics and matches keep belonging together.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import InputError
from pipeline.formats.case import sorted_images
from pipeline.formats.case_files import MASK_FOLDER, MATCHES_FOLDER, camera_file, image_folder
from pipeline.formats.idr import IdrCameras, load_idr_cameras, save_idr_cameras
from pipeline.formats.matches import ViewMatches, load_matches, save_matches
from pipeline.formats.views import ViewRecord, save_views
from pipeline.geometry.cameras import project
from pipeline.imaging.decode import DecodedPhoto, UnusablePhotoError, decode_photo
from pipeline.progress import Progress

_MIN_SIDE_PX = 8
_SCALE_TOLERANCE = 1e-4
_PNG_LEVEL = 3


@dataclass
class ImportedScene:
    """What `import_scene` made.

    Attributes:
        report: for `scene.json`, lengths in the world's unit.
        warnings: one sentence each.
    """

    report: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


@dataclass
class ImportedMatches:
    """What `import_matches` made."""

    figures: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def import_scene(case: Path, wanted_cameras: str, out: Path, progress: Progress) -> ImportedScene:
    """Write `image/`, `mask/` where there are masks, `cameras_colmap.npz` and `views.json`.

    Args:
        case: folder in the PoRF data convention.
        wanted_cameras: file name, or `auto`.

    Raises:
        InputError: a part is missing or unusable, or parts do not belong together.
    """
    images = sorted_images(image_folder(case))
    source = camera_file(case, wanted_cameras)
    cameras, warnings = _cameras(source, len(images))
    size, alphas = _write_images(images, out / "image", progress)
    warnings += _write_masks(case, images, alphas, size, out / "mask")
    save_idr_cameras(out / "cameras_colmap.npz", cameras, _unit(source))
    records = [ViewRecord(index=i, name=p.name, registered=True) for i, p in enumerate(images)]
    save_views(out / "views.json", records)
    distances = np.linalg.norm(cameras.c2w_normalised[:, :3, 3], axis=1)
    report = {
        "frame": "world",
        "unit": _unit(source) or "unknown",
        "width": size[0],
        "height": size[1],
        "views": len(images),
        "center": cameras.centre.tolist(),
        "radius": cameras.radius,
        "region_source": "the case's scale_mat",
        "cameras_from": source.name,
        "cameras_inside": int((distances < 1).sum()),
        "camera_distance_radii": float(np.median(distances)),
    }
    return ImportedScene(report, warnings + _view_warnings(cameras, images, size))


def import_matches(case: Path, view_count: int, out: Path) -> ImportedMatches:
    """Write `colmap_matches/` of a case with `view_count` views.

    Raises:
        InputError: no matches, or files that cannot be read or do not fit the views.
    """
    folder = case / MATCHES_FOLDER
    views = load_matches(folder, view_count)
    stray = _strays(folder, view_count)
    if stray:
        raise InputError(
            f"{folder} holds {stray[0]}, which is of no view: expected 000000.npz to "
            f"{view_count - 1:06d}.npz, numbered by position among the sorted images",
            hint="files numbered by image ids of a database must be renamed",
        )
    for index, view in enumerate(views):
        _check_matches(index, view)
    save_matches(out / "colmap_matches", views)
    counts = [len(m) for view in views for m in view.matches_px]
    linked = {i for i, view in enumerate(views) for j in view.sources} | {
        j for view in views for j in view.sources
    }
    lonely = [i for i in range(view_count) if i not in linked]
    warnings = []
    if lonely:
        warnings.append(
            f"no matches for these views: {_some(lonely)}; colours alone refine their cameras"
        )
    figures = {
        "pairs": len(counts),
        "matches": int(sum(counts)),
        "heldout": int(sum(h.sum() for view in views for h in view.heldout)),
        "matches_per_pair_median": float(np.median(counts)) if counts else 0.0,
        "views_without_matches": lonely,
    }
    return ImportedMatches(figures, warnings)


def _cameras(path: Path, views: int) -> tuple[IdrCameras, list[str]]:
    cameras = load_idr_cameras(path)
    if len(cameras) < views:
        raise InputError(
            f"{path.name} has {len(cameras)} cameras for {views} images",
            hint="index i of the cameras is position i of the sorted images",
        )
    _check_scale_mat(cameras.scale_mat, path)
    if len(cameras) == views:
        return cameras, []
    kept = IdrCameras(cameras.K[:views], cameras.c2w[:views], cameras.scale_mat)
    return kept, [
        f"{path.name} has {len(cameras)} cameras for {views} images: the first {views} are used"
    ]


def _check_scale_mat(scale_mat: NDArray, path: Path) -> None:
    scale = scale_mat[0, 0]
    expected = np.eye(4) * [scale, scale, scale, 1]
    expected[:3, 3] = scale_mat[:3, 3]
    off = np.abs(scale_mat - expected).max()
    if not scale > 0 or off > _SCALE_TOLERANCE * scale:
        raise InputError(
            f"{path.name}: scale_mat_0 is no positive scale with a shift:\n{scale_mat}",
            hint="the IDR convention knows neither rotation nor unequal scales there",
        )


def _unit(path: Path) -> str | None:
    with np.load(path, allow_pickle=False) as stored:
        return str(stored["unit"]) if "unit" in stored.files else None


def _write_images(
    paths: Sequence[Path], out: Path, progress: Progress
) -> tuple[tuple[int, int], list[NDArray | None]]:
    """Write 000.png …; returns (width, height) and the alpha channels, where there are any."""
    out.mkdir()
    size: tuple[int, int] | None = None
    alphas: list[NDArray | None] = []
    for i, path in enumerate(paths):
        photo = _decode(path)
        now = photo.rgb.shape[1], photo.rgb.shape[0]
        size = size or now
        if now != size:
            raise InputError(
                f"images differ in size: {paths[0].name} is {size[0]}×{size[1]}, {path.name} is "
                f"{now[0]}×{now[1]}",
                hint="undistorted views of one size are expected",
            )
        target = out / f"{i:03d}.png"
        if photo.verbatim and path.suffix.lower() == ".png":
            shutil.copyfile(path, target)
        else:
            _write_png(target, photo.rgb[..., ::-1])
        alphas.append(photo.alpha)
        progress.advance("images", i + 1, len(paths))
    if size is None:
        raise InputError("no images")
    return size, alphas


def _decode(path: Path) -> DecodedPhoto:
    try:
        return decode_photo(path, min_side_px=_MIN_SIDE_PX)
    except UnusablePhotoError as error:
        raise InputError(f"the image {path} cannot be used: {error}") from error


def _write_masks(
    case: Path,
    images: Sequence[Path],
    alphas: Sequence[NDArray | None],
    size: tuple[int, int],
    out: Path,
) -> list[str]:
    """Masks of the case, or else the images' transparency; white = object."""
    if (case / MASK_FOLDER).is_dir():
        paths = sorted_images(case / MASK_FOLDER)
        if len(paths) != len(images):
            raise InputError(f"{case}: {len(images)} images but {len(paths)} masks")
        masks = [_read_mask(path, size) for path in paths]
    elif all(alpha is not None for alpha in alphas):
        masks = [alpha > 127 for alpha in alphas if alpha is not None]
    elif any(alpha is not None for alpha in alphas):
        return ["only some images are transparent in places: their transparency is no mask"]
    else:
        return []
    out.mkdir()
    for i, mask in enumerate(masks):
        _write_png(out / f"{i:03d}.png", np.where(mask, 255, 0).astype(np.uint8))
    empty = [images[i].name for i, mask in enumerate(masks) if not mask.any()]
    return [f"empty masks: {_some(empty)}"] if empty else []


def _read_mask(path: Path, size: tuple[int, int]) -> NDArray:
    try:
        with Image.open(path) as image:
            if image.size != size:
                raise InputError(
                    f"the mask {path} is {image.size[0]}×{image.size[1]}, the images are "
                    f"{size[0]}×{size[1]}"
                )
            return np.asarray(image.convert("L")) > 127
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read the mask {path} ({error})") from error


def _write_png(path: Path, pixels: NDArray) -> None:
    """BGR or grey pixels."""
    done, content = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])
    if not done:
        raise InputError(f"cannot encode {path.name}")
    path.write_bytes(content.tobytes())


def _view_warnings(cameras: IdrCameras, images: Sequence[Path], size: tuple[int, int]) -> list[str]:
    c2w = cameras.c2w_normalised
    inside = np.flatnonzero(np.linalg.norm(c2w[:, :3, 3], axis=1) < 1).tolist()
    warnings = []
    if len(inside):
        names = _some([images[i].name for i in inside])
        warnings.append(
            f"{len(inside)} of {len(images)} cameras stand inside the region of interest (the unit "
            f"sphere of scale_mat): {names}; what lies behind them is not seen"
        )
    blind = []
    for i, path in enumerate(images):
        _, depth = project(cameras.K[i], c2w[i], np.zeros((1, 3)))
        if depth[0] <= 0 and i not in inside:
            blind.append(path.name)
    if blind:
        warnings.append(f"the region of interest lies behind the cameras of {_some(blind)}")
    return warnings


def _strays(folder: Path, view_count: int) -> list[str]:
    """Match files that no view would read."""
    known = {f"{i:06d}.npz" for i in range(view_count)}
    return sorted(path.name for path in folder.glob("*.npz") if path.name not in known)


def _check_matches(index: int, view: ViewMatches) -> None:
    for source, matches_px in zip(view.sources, view.matches_px, strict=True):
        if source == index:
            raise InputError(f"the matches of view {index} name the view itself as their source")
        if not np.isfinite(matches_px).all():
            raise InputError(f"the matches of views {index} and {source} are not all finite")


def _some(names: Sequence[Any], most: int = 5) -> str:
    listed = ", ".join(str(name) for name in names[:most])
    return listed + (f" and {len(names) - most} more" if len(names) > most else "")
