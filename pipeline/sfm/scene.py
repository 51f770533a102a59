"""A calibrated model to a scene that can be trained on: ideal views, region of interest, points."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import InputError
from pipeline.formats.frame import UNKNOWN, WorldFrame
from pipeline.formats.idr import IdrCameras, make_scale_mat, save_idr_cameras
from pipeline.formats.sparse import FILE as SPARSE_FILE
from pipeline.imaging.ingest import write_png
from pipeline.imaging.masks import binary
from pipeline.progress import Progress
from pipeline.sfm.config import SceneConfig
from pipeline.sfm.frusta import Frusta, inscribed_radii, seen_by, sphere_share_of_views
from pipeline.sfm.hull import MaskView
from pipeline.sfm.region import Region, SparsePoints, find_region
from pipeline.sfm.undistortion import Layout, plan_layout, resample, sampling_map
from pipeline.sfm.views import RegisteredView


@dataclass(frozen=True)
class Scene:
    """What `write_scene` made.

    Attributes:
        cameras: ideal cameras and region of interest.
        region: how the region was found.
        report: for `scene.json`.
        warnings: what a user should look at.
    """

    cameras: IdrCameras
    region: Region
    report: dict[str, Any]
    warnings: list[str]


def write_scene(
    model: pycolmap.Reconstruction,
    views: list[RegisteredView],
    ingest_dir: Path,
    out: Path,
    config: SceneConfig,
    seed: int,
    progress: Progress,
    frame: WorldFrame,
    given_region: NDArray[np.float64] | None = None,
) -> Scene:
    """Write `image/`, `mask/`, `cameras_colmap.npz` and `sparse.npz`.

    `mask/` is there only if every view has a mask: readers take a folder of masks as complete.

    Args:
        frame: what the model's frame is.
        given_region: (4, 4) unit sphere → world that came with the user's cameras.
    """
    points = _write_sparse(model, out / SPARSE_FILE)
    c2w = np.stack([view.c2w for view in views])
    photos = Frusta(
        np.stack([view.camera.calibration_matrix() for view in views]),
        c2w,
        np.array([[view.camera.width, view.camera.height] for view in views], dtype=np.float64),
    )
    masks = _mask_views(views, ingest_dir) if config.use_masks else []
    region = _choose_region(photos, points, masks, config, seed, given_region)
    layout = plan_layout([view.camera for view in views], region.centre, c2w)
    _write_images(views, layout, ingest_dir, out, progress)
    cameras = IdrCameras(layout.K, c2w, make_scale_mat(region.centre, region.radius))
    known = frame.unit if frame.unit != UNKNOWN else None
    save_idr_cameras(out / "cameras_colmap.npz", cameras, unit=known)
    ideal = Frusta(layout.K, c2w, np.tile([layout.width, layout.height], (len(views), 1)) * 1.0)
    report = _report(ideal, points, region, layout, views)
    report.update(_frame_facts(frame, region))
    report["roi_box"] = config.roi_box
    return Scene(cameras, region, report, _warnings(report, region, views))


def _write_sparse(model: pycolmap.Reconstruction, path: Path) -> SparsePoints:
    ids = sorted(model.points3D)
    found = [model.points3D[i] for i in ids]
    xyz = np.array([p.xyz for p in found], dtype=np.float64).reshape(-1, 3)
    lengths = np.array([p.track.length() for p in found], dtype=np.int64)
    np.savez(
        path,
        points=xyz,
        colors=np.array([p.color for p in found], dtype=np.uint8).reshape(-1, 3),
        errors_px=np.array([p.error for p in found], dtype=np.float64),
        track_lengths=lengths,
    )
    return SparsePoints(xyz, lengths)


def _mask_views(views: list[RegisteredView], ingest_dir: Path) -> list[MaskView]:
    found = []
    for view in views:
        if view.photo.mask is None:
            continue
        # distortion moves mask edges by less than a cell of the hull's grid
        with Image.open(ingest_dir / view.photo.mask) as image:
            mask = np.asarray(image)
        found.append(MaskView(mask, view.camera.calibration_matrix(), view.c2w))
    return found


def _choose_region(
    photos: Frusta,
    points: SparsePoints,
    masks: list[MaskView],
    config: SceneConfig,
    seed: int,
    given: NDArray[np.float64] | None,
) -> Region:
    found = find_region(photos, points, masks, seed)
    centre, radius, source = found.centre, found.radius, found.source
    if given is not None:
        centre, radius, source = given[:3, 3], float(given[0, 0]), "given cameras"
    if config.roi_box is not None:
        low, high = np.array(config.roi_box[:3]), np.array(config.roi_box[3:])
        centre, radius = (low + high) / 2, float(np.linalg.norm(high - low) / 2)
        source = "given"
    if config.roi_radius is not None:
        radius, source = config.roi_radius, "given"
    if config.roi_center is not None:
        centre = np.array(config.roi_center, dtype=np.float64)
    region = Region(centre, radius * config.roi_scale, source, found.facing, found.ground, found.up)
    if not (inscribed_radii(photos, region.centre) > -region.radius).any():
        raise InputError(
            f"no photo shows the region of interest at {np.round(region.centre, 3).tolist()}"
            f" with radius {region.radius:.3g}",
            hint="the region is in the world frame of sparse.npz and the cameras; leave it out to"
            " have it found, and see it with `porf roi OUT`",
        )
    return region


def _write_images(
    views: list[RegisteredView], layout: Layout, ingest_dir: Path, out: Path, progress: Progress
) -> None:
    (out / "image").mkdir()
    masked = all(view.photo.mask is not None for view in views)
    if masked:
        (out / "mask").mkdir()
    maps, maps_of = None, None
    for view in views:
        K = layout.K[view.index]
        key = (view.camera.camera_id, K.tobytes())
        if maps is None or maps_of != key:  # mostly one camera for all: computed once
            maps = sampling_map(view.camera, K, layout.width, layout.height)
            maps_of = key
        shrink = K[0, 0] / view.camera.mean_focal_length()
        with Image.open(ingest_dir / str(view.photo.file)) as photo:
            rgb = np.asarray(photo.convert("RGB"))
        write_png(out / f"image/{view.index:03d}.png", resample(rgb, maps, shrink))
        if masked:
            with Image.open(ingest_dir / str(view.photo.mask)) as stored:
                mask = resample(np.asarray(stored), maps, shrink)
            write_png(out / f"mask/{view.index:03d}.png", binary(mask))
        progress.advance("undistortion", view.index + 1, len(views))


def _report(
    ideal: Frusta,
    points: SparsePoints,
    region: Region,
    layout: Layout,
    views: list[RegisteredView],
) -> dict[str, Any]:
    distances = np.linalg.norm(points.xyz - region.centre, axis=1)
    inside = distances < region.radius
    camera_distances = np.linalg.norm(ideal.centres - region.centre, axis=1)
    framed = seen_by(ideal, points.xyz[inside])
    return {
        "width": layout.width,
        "height": layout.height,
        "views": len(views),
        "center": region.centre.tolist(),
        "radius": float(region.radius),
        "region_source": region.source,
        "facing": region.facing,
        "ground": None
        if region.ground is None
        else {"normal": region.ground.normal.tolist(), "offset": region.ground.offset},
        "points_inside_fraction": float(inside.mean()) if len(inside) else 0.0,
        "points_inside_framed_fraction": framed.mean(axis=1).tolist() if inside.any() else [],
        "view_inside_fraction": sphere_share_of_views(ideal, region.centre, region.radius).tolist(),
        "cameras_inside": int((camera_distances < region.radius).sum()),
        "camera_distance_radii": float(np.median(camera_distances) / region.radius),
        "window_kept_fraction": layout.kept.tolist(),
        "views_masked": sum(view.photo.mask is not None for view in views),
    }


def _frame_facts(frame: WorldFrame, region: Region) -> dict[str, Any]:
    """Unit and upright direction: gravity where it is known, else the ground, else the cameras."""
    up, source = region.up.tolist(), "mean of the cameras"
    if frame.up is not None:
        up, source = list(frame.up), f"gravity ({frame.source})"
    elif region.ground is not None:
        source = "ground plane"
    return {"unit": frame.unit, "frame": frame.as_json(), "up": up, "up_source": source}


def _warnings(report: dict[str, Any], region: Region, views: list[RegisteredView]) -> list[str]:
    warnings = []
    if region.facing == "forward" and region.source not in ("given", "given cameras"):
        warnings.append(
            "the cameras look in parallel: the region of interest is the middle of what most photos"
            " show; set scene.roi_center and scene.roi_radius if the object is elsewhere"
        )
    if region.facing == "outward":
        warnings.append(
            "the cameras do not look at a common object; the surface will be poor: walk around the"
            " object and point the camera at it"
        )
    if report["cameras_inside"]:
        warnings.append(
            f"{report['cameras_inside']} of {report['views']} cameras stand inside the region of"
            " interest: step back, or set a smaller scene.roi_radius"
        )
    if report["points_inside_fraction"] < 0.05:
        warnings.append("hardly any sparse points lie in the region of interest: check it")
    cut = [
        v.photo.name for v, k in zip(views, report["window_kept_fraction"], strict=True) if k < 0.7
    ]
    if cut:
        warnings.append(
            f"photos of different shapes: {len(cut)} lose more than 30% of their area to the common"
            f" size (for example {cut[0]})"
        )
    if 0 < report["views_masked"] < report["views"]:
        warnings.append(
            f"only {report['views_masked']} of {report['views']} views have a mask: training goes"
            " without masks"
        )
    return warnings
