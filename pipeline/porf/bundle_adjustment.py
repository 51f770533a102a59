"""Bundle adjustment of a case: its poses, and on request one lens for all views, by its matches.

Matches join into tracks, tracks are triangulated, and pycolmap (Ceres) moves poses and points with
a Cauchy loss. Tracks tie many views together, which pairwise distances do not: from the same start
the cameras come out better (docs/training.md).

Every view is brought to one ideal camera first, so that views with different intrinsics share one
change of focal length, principal point and radial distortion.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pycolmap
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.geometry.cameras import invert_pose
from pipeline.geometry.pixels import idr_to_colmap_px
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.tracks import Tracks, join_tracks, triangulate
from pipeline.porf.detached import attached_views, detached, resected
from pipeline.porf.epipolar import MatchTable, invert_intrinsics, symmetric_epipolar_errors_px
from pipeline.porf.lens import Lens
from pipeline.sfm.adjustment import adjust, tail_scale_px
from pipeline.sfm.colmap import c2w_of

LensModel = Literal["given", "pinhole", "radial"]
"""What is refined beside the poses: nothing; focal length and principal point; two coefficients of
radial distortion as well."""

_COLMAP_MODEL = {"given": "SIMPLE_PINHOLE", "pinhole": "SIMPLE_PINHOLE", "radial": "RADIAL"}
_LOSS_PX = 1.0
_INLIER_PX = 4.0
_LOOSE = 4.0  # medians
_MAX_ROUNDS = 10
_MAX_RETURNS = 2
_SAME_LENS_PX = 0.05
_RESECTION_PX = 2 * _INLIER_PX
_SETTLED_DEG = 0.01
"""Mean turn of a view against the first that the last round may still bring."""
_MAX_TRACKS = 40_000
_MIN_SPREAD = np.sin(np.deg2rad(0.5)) ** 2
"""Of a point's rays: those that all but coincide say nothing about depth and slow the solver."""


@dataclass(frozen=True)
class Adjusted:
    """Result of an adjustment.

    Attributes:
        c2w: (V, 4, 4) float64, in no particular frame.
        lens: shared change of the given intrinsics.
        observations: that counted in the end; 0 = nothing could be triangulated, nothing moved.
        median_px: median reprojection error of them.
    """

    c2w: Tensor
    lens: Lens
    observations: int
    median_px: float


def bundle_adjust(
    table: MatchTable,
    c2w: Tensor,
    K: Tensor,
    model: LensModel,
    lens: Lens | None = None,
    fit_loss: bool = False,
) -> Adjusted:
    """Minimise the reprojection errors of all tracks, on the CPU in float64.

    Bad cameras misplace right matches too: rounds begin with a loss as wide as the errors are, and
    choose their matches anew, until it is down to one pixel and the choice has settled. Views that
    lost their matches with the rest on the way are brought back, and the rounds begin again. A
    lens that the matches hardly determine is drawn to the given one.

    Args:
        table: matches in the pixels of K.
        c2w: (V, 4, 4) starting poses.
        K: (V, 3, 3) given intrinsics.
        lens: starting change of them; None = none.
        fit_loss: go on with a loss whose width is fitted, once, to the errors that one pixel left.
    """
    ideal = IdealMatches(table, K)
    poses, lens = c2w.double().cpu().numpy(), lens or Lens.none()
    adjusted = _rounds(ideal, poses, lens, model, fit_loss)
    for _ in range(_MAX_RETURNS):
        returned = ideal.returned(adjusted.c2w.numpy(), adjusted.lens)
        if returned is None:
            break
        adjusted = _rounds(ideal, returned, adjusted.lens, model, fit_loss)
    if model == "given" or adjusted.observations == 0:
        return adjusted
    lens = _regularised(ideal, adjusted, model)
    if ideal.differ_px(lens, adjusted.lens) < _SAME_LENS_PX:
        return adjusted
    return _rounds(ideal, adjusted.c2w.numpy(), lens, model, fit_loss, hold_lens=True)


def _regularised(ideal: "IdealMatches", adjusted: Adjusted, model: LensModel) -> Lens:
    """The lens drawn to the given one by as much as the matches leave open; the given one where
    they do not determine it."""
    poses = adjusted.c2w.numpy()
    tracks, points, _ = ideal.tracks(poses, adjusted.lens)
    scene = _scene(tracks, points, poses, adjusted.lens, ideal.focal_px, model)
    found = adjust(scene, _LOSS_PX, True, with_covariance=True).covariance
    if not found:
        return Lens.none()
    (covariance,) = found.values()
    unit = np.array([ideal.focal_px] * 3 + [1.0, 1.0])[: len(covariance)]
    return adjusted.lens.regularised(covariance / np.outer(unit, unit))


def _rounds(
    ideal: "IdealMatches",
    poses: NDArray,
    lens: Lens,
    model: LensModel,
    fit_loss: bool,
    hold_lens: bool = False,
) -> Adjusted:
    """Adjust, and choose matches anew, until nothing changes."""
    observations, median_px = 0, float("nan")
    fitted_px, last_px = None, None if fit_loss else _LOSS_PX
    for _ in range(_MAX_ROUNDS):
        tracks, points, width_px = ideal.tracks(poses, lens)
        if len(tracks) == 0:
            break
        scene = _scene(tracks, points, poses, lens, ideal.focal_px, model)
        refine = model != "given" and not hold_lens
        loss_px = fitted_px or max(_LOSS_PX, width_px)
        after = adjust(scene, loss_px, refine, fixed_intrinsics=not refine)
        ids = sorted(scene.reg_image_ids())
        before, poses = poses, poses.copy()
        poses[[i - 1 for i in ids]] = [c2w_of(scene.image(i)) for i in ids]
        lens = _lens_of(scene.cameras[1], ideal.focal_px)
        median_px = float(np.sqrt(np.median(after.squared_px)))
        observations = len(after.squared_px)
        if loss_px == last_px and _turn_deg(before, poses) < _SETTLED_DEG:
            break
        if fit_loss and loss_px == _LOSS_PX:
            fitted_px = last_px = tail_scale_px(after.squared_px)
    return Adjusted(torch.from_numpy(poses), lens, observations, median_px)


def detached_views(table: MatchTable, c2w: Tensor, K: Tensor) -> list[int]:
    """Views whose matches with most others do not fit cameras c2w (V, 4, 4), K (V, 3, 3); those
    without any match are not among them."""
    if table.num_pairs == 0:
        return []
    c2w, K, table = c2w.double().cpu(), K.double().cpu(), _on_cpu(table)
    pair = table.pair_of_match
    ref, src = table.pair_ref[pair].numpy(), table.pair_src[pair].numpy()
    attached = attached_views(ref, src, _fitting(table, c2w, K), len(c2w))
    return detached(attached, ref, src)


def _on_cpu(table: MatchTable) -> MatchTable:
    return MatchTable(**{name: value.cpu() for name, value in vars(table).items()})


def _turn_deg(before: NDArray, after: NDArray) -> float:
    """Mean change of the views' rotations (V, 4, 4) against the first view's, degrees."""
    relative = (c2w[0, :3, :3].T @ c2w[:, :3, :3] for c2w in (before, after))
    return float(rotation_angles_deg(*relative).mean())


class IdealMatches:
    """Matches seen by one camera: focal length `focal_px`, principal point at (0, 0)."""

    def __init__(self, table: MatchTable, K: Tensor) -> None:
        K = K.double().cpu()
        self.focal_px = float(K[:, 0, 0].mean())
        pair = table.pair_of_match.cpu()
        self.ref, self.src = table.pair_ref.cpu()[pair], table.pair_src.cpu()[pair]
        points = table.points_px.cpu().double()
        inverse = invert_intrinsics(K)
        ends = [self._ideal(points[:, :2], inverse[self.ref])]
        ends.append(self._ideal(points[:, 2:], inverse[self.src]))
        self.matches_px = torch.cat(ends, dim=1)
        self.table = replace(_on_cpu(table), points_px=self.matches_px)

    def _ideal(self, xy_px: Tensor, K_inverse: Tensor) -> Tensor:
        homogeneous = torch.cat([xy_px, torch.ones_like(xy_px[:, :1])], dim=1)
        return (K_inverse @ homogeneous[..., None])[:, :2, 0] * self.focal_px

    def differ_px(self, first: Lens, second: Lens) -> float:
        """By how much two lenses show a point at half a focal length from the middle apart."""
        ends = []
        for lens in (first, second):
            r2 = 0.25
            bent = 0.5 * (1 + lens.distortion[0] * r2 + lens.distortion[1] * r2**2)
            ends.append(np.array([lens.zoom * bent + lens.shift[0], lens.shift[1]]))
        return float(np.linalg.norm(ends[0] - ends[1])) * self.focal_px

    def tracks(self, c2w: NDArray, lens: Lens) -> tuple[Tracks, NDArray, float]:
        """Tracks that fit the cameras, their points (T, 3), and their median error in pixels.

        The tracks' pixels are those before the lens is undone.
        """
        K = self._K(c2w, lens)
        tracks = self._joined(self._fitting(c2w, lens, K))
        if len(tracks) > _MAX_TRACKS:
            tracks = tracks.of_points(np.linspace(0, len(tracks) - 1, _MAX_TRACKS).astype(int))
        straight = Tracks(tracks.point, tracks.view, lens.undistorted_px(tracks, K))
        found = triangulate(straight, K.numpy(), c2w)
        seen = found.error_px[np.isfinite(found.error_px)]
        median_px = float(np.median(seen)) if len(seen) else 0.0
        good = found.error_px < max(_INLIER_PX, _LOOSE * median_px)
        good &= (_spread(straight, found.xyz, c2w) > _MIN_SPREAD)[tracks.point]
        good &= (np.bincount(tracks.point[good], minlength=len(tracks)) >= 2)[tracks.point]
        return tracks.of_observations(good), found.xyz[np.unique(tracks.point[good])], median_px

    def returned(self, c2w: NDArray, lens: Lens) -> NDArray | None:
        """Poses (V, 4, 4) with those of detached views found anew; None if there are none, or no
        pose of theirs is found."""
        K = self._K(c2w, lens)
        fits = self._fitting(c2w, lens, K)
        ref, src = self.ref.numpy(), self.src.numpy()
        attached = attached_views(ref, src, fits, len(c2w))
        lost = detached(attached, ref, src)
        if not lost:
            return None
        tracks = self._joined(fits & attached[ref] & attached[src])
        straight = Tracks(tracks.point, tracks.view, lens.undistorted_px(tracks, K))
        points = triangulate(straight, K.numpy(), c2w).xyz
        poses = c2w.copy()
        for view in lost:
            found = self._resected(view, tracks, points, attached, lens, K)
            poses[view] = c2w[view] if found is None else found
        return None if np.array_equal(poses, c2w) else poses

    def _resected(
        self, view: int, tracks: Tracks, points: NDArray, attached: NDArray, lens: Lens, K: Tensor
    ) -> NDArray | None:
        """A view's pose by its matches with attached views, whose points are known."""
        xy, others, theirs = [], [], []
        for own, other, columns in ((self.ref, self.src, (0, 2)), (self.src, self.ref, (2, 0))):
            mine = (own.numpy() == view) & attached[other.numpy()]
            xy.append(self.matches_px[mine][:, columns[0] : columns[0] + 2].numpy())
            theirs.append(self.matches_px[mine][:, columns[1] : columns[1] + 2].numpy())
            others.append(other[mine].numpy())
        point = tracks.points_at(np.concatenate(others), np.concatenate(theirs))
        known = np.unique(point, return_index=True)[1]
        known = known[point[known] >= 0]
        seen = Tracks(point[known], np.full(len(known), view), np.concatenate(xy)[known])
        camera = _camera(replace(lens, distortion=(0.0, 0.0)), self.focal_px, "given")
        return resected(lens.undistorted_px(seen, K), points[seen.point], camera, _RESECTION_PX)

    def _K(self, c2w: NDArray, lens: Lens) -> Tensor:
        ideal_K = torch.diag(torch.tensor([self.focal_px, self.focal_px, 1.0]).double())
        return lens.applied(ideal_K.expand(len(c2w), 3, 3))

    def _fitting(self, c2w: NDArray, lens: Lens, K: Tensor) -> NDArray[np.bool_]:
        return _fitting(lens.undistorted(self.table, K), torch.from_numpy(c2w), K)

    def _joined(self, chosen: NDArray) -> Tracks:
        return join_tracks(
            self.ref.numpy()[chosen], self.src.numpy()[chosen], self.matches_px.numpy()[chosen], 2
        )


def _fitting(table: MatchTable, c2w: Tensor, K: Tensor) -> NDArray[np.bool_]:
    """Matches (M,) that fit the cameras."""
    distance = symmetric_epipolar_errors_px(table, c2w, K)
    fits: NDArray[np.bool_] = (
        distance < max(_INLIER_PX, _LOOSE * float(distance.median()))
    ).numpy()
    return fits


def _spread(tracks: Tracks, points: NDArray, c2w: NDArray) -> NDArray:
    """How far the rays of each point (T,) are from parallel: 1 - |mean direction|²."""
    ray = points[tracks.point] - c2w[tracks.view, :3, 3]
    ray /= np.maximum(np.linalg.norm(ray, axis=1, keepdims=True), 1e-300)
    total = np.zeros((len(points), 3))
    np.add.at(total, tracks.point, ray)
    count = np.maximum(np.bincount(tracks.point, minlength=len(points)), 1)
    spread: NDArray = 1 - ((total / count[:, None]) ** 2).sum(axis=1)
    return spread


def _scene(
    tracks: Tracks, points: NDArray, c2w: NDArray, lens: Lens, focal_px: float, model: LensModel
) -> pycolmap.Reconstruction:
    """COLMAP's form of tracks and cameras; view i is image i + 1, views without tracks are out."""
    scene = pycolmap.Reconstruction()
    scene.add_camera_with_trivial_rig(_camera(lens, focal_px, model))
    w2c = invert_pose(c2w)
    slot = np.zeros(len(tracks.view), dtype=np.int64)
    for view in np.unique(tracks.view).tolist():
        mine = np.flatnonzero(tracks.view == view)
        slot[mine] = np.arange(len(mine))
        keypoints = idr_to_colmap_px(tracks.xy_px[mine])
        image = pycolmap.Image(name=str(view), image_id=view + 1, camera_id=1, keypoints=keypoints)
        rotation = pycolmap.Rotation3d(w2c[view, :3, :3])
        pose = pycolmap.Rigid3d(rotation, w2c[view, :3, 3])
        scene.add_image_with_trivial_frame(image, pose)
    order = np.argsort(tracks.point, kind="stable")
    ends = np.cumsum(np.bincount(tracks.point))[:-1]
    for xyz, rows in zip(points, np.split(order, ends), strict=True):
        elements = [
            pycolmap.TrackElement(view + 1, index)
            for view, index in zip(tracks.view[rows].tolist(), slot[rows].tolist(), strict=True)
        ]
        scene.add_point3D(xyz, pycolmap.Track(elements=elements))
    return scene


def _camera(lens: Lens, focal_px: float, model: LensModel) -> pycolmap.Camera:
    centre = idr_to_colmap_px(np.array(lens.shift) * focal_px)
    extra = list(lens.distortion) if model == "radial" else []
    size = max(1, round(2 * focal_px))  # of no effect, but there must be one
    params = [focal_px * lens.zoom, *centre, *extra]
    return pycolmap.Camera(
        camera_id=1, model=_COLMAP_MODEL[model], width=size, height=size, params=params
    )


def _lens_of(camera: pycolmap.Camera, focal_px: float) -> Lens:
    focal, x, y, *distortion = (float(value) for value in camera.params)
    shift = (np.array([x, y]) - idr_to_colmap_px(np.zeros(2))) / focal_px
    k1, k2 = distortion or (0.0, 0.0)
    return Lens(focal / focal_px, (float(shift[0]), float(shift[1])), (k1, k2))
