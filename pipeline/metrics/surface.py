"""How far a predicted mesh lies from a true one, where the cameras can see it.

Protocol "seen surface" (cameras known):
    accuracy      Rays of the true cameras. Where a ray, and the rays `margin_px` around it, meet
                  the true object, and it also meets the predicted mesh: distance of the predicted
                  first hit to the true surface. What lies outside the object's pixels (a table, a
                  background) does not count.
    completeness  First hits on the true object that at least two cameras see: distance to the
                  nearest place of the predicted surface.
    Both clouds are thinned to one point in a cube of `spacing`, so that means are means over area.
Protocol "whole surface" (no cameras): both meshes sampled evenly over their area, as they lie.

Distances beyond `cap` are set to it, and the share of such points is reported. Lengths given as
fractions are fractions of the object's radius: that of the smallest sphere around the centre of the
true mesh's bounding box that holds all its vertices.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import trimesh
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.geometry.cameras import pixel_rays
from pipeline.geometry.raycast import RayScene
from pipeline.geometry.similarity import Similarity
from pipeline.metrics.clouds import check_frames_fit, check_mesh, extent, unit_guess
from pipeline.metrics.distance import SurfaceDistance, sample_surface, thin
from pipeline.metrics.poses import camera_span
from pipeline.progress import NullProgress, Progress

MIN_SEEN_BY = 2
NORMAL_SAMPLES = 10_000
"""About so many points a surface have their normals compared."""
_SMALLEST_SPAN, _LARGEST_SPAN = 0.03, 100.0
"""Plausible extents of the cameras, in object radii."""


@dataclass(frozen=True)
class SurfaceProtocol:
    """Fixed numbers of the measurement; fractions are of the object's radius."""

    spacing: float = 0.01
    cap: float = 0.2
    threshold: float = 0.01
    rays_per_view: int = 20_000
    margin_px: float = 2.0


@dataclass(frozen=True)
class ObjectSphere:
    """The true object's size: the yardstick of everything else, in the unit of the truth."""

    centre: NDArray
    radius: float

    @classmethod
    def of(cls, vertices: NDArray) -> "ObjectSphere":
        """Sphere about the centre of the bounding box of vertices (V, 3)."""
        return cls(*extent(vertices))


@dataclass(frozen=True)
class Viewers:
    """True cameras that look at the true object.

    Attributes:
        K: (N, 3, 3) intrinsics without distortion, pixel centres at integers.
        c2w: (N, 4, 4) in the frame of the truth.
        size_px: (N, 2) width and height of the photos.
    """

    K: NDArray
    c2w: NDArray
    size_px: NDArray


@dataclass(frozen=True)
class SurfaceErrors:
    """Distances in units of the truth, capped.

    Attributes:
        protocol: `seen surface` or `whole surface`.
        radius: of the object.
        places: (A, 3) on the predicted surface, where its accuracy was measured; truth's frame.
        accuracy: (A,) distances predicted → true, of these; the cap alone where there is none.
        completeness: (C,) distances true → predicted.
        cap, threshold: lengths used, in units of the truth.
        missed: share of the object's rays that meet no predicted surface; None without cameras.
        normal_consistency: mean |cosine| between the normals at nearest places, over both
            directions; NaN where no place is nearer than the cap.
    """

    protocol: Literal["seen surface", "whole surface"]
    radius: float
    places: NDArray
    accuracy: NDArray
    completeness: NDArray
    cap: float
    threshold: float
    missed: float | None
    normal_consistency: float

    @property
    def chamfer(self) -> float:
        """Mean of mean accuracy and mean completeness."""
        return float((self.accuracy.mean() + self.completeness.mean()) / 2)

    @property
    def precision(self) -> float:
        """Share of the predicted points nearer than the threshold."""
        return float((self.accuracy < self.threshold).mean())

    @property
    def recall(self) -> float:
        """Share of the true points nearer than the threshold."""
        return float((self.completeness < self.threshold).mean())

    @property
    def fscore(self) -> float:
        """Harmonic mean of precision and recall."""
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both > 0 else 0.0

    @property
    def capped(self) -> tuple[float, float]:
        """Shares of accuracy and completeness distances that reached the cap."""
        return float((self.accuracy >= self.cap).mean()), float(
            (self.completeness >= self.cap).mean()
        )


def compare_surfaces(
    predicted: trimesh.Trimesh,
    true: trimesh.Trimesh,
    alignment: Similarity,
    viewers: Viewers | None,
    protocol: SurfaceProtocol | None = None,
    progress: Progress | None = None,
) -> SurfaceErrors:
    """Distances between a predicted and a true mesh.

    Args:
        predicted: in its own world frame.
        true: in the frame of the truth; need not be closed.
        alignment: predicted world → frame of the truth.
        viewers: true cameras, in the frame of the truth; None compares the meshes whole.

    Raises:
        InputError: a mesh that nothing can be measured to, meshes or cameras whose sizes do not fit
            together, or no camera that sees the object.
    """
    protocol, progress = protocol or SurfaceProtocol(), progress or NullProgress()
    check_mesh(predicted.vertices, predicted.faces, "the reconstructed mesh")
    check_mesh(true.vertices, true.faces, "the ground-truth mesh")
    predicted_vertices = alignment.apply_points(predicted.vertices)
    sphere = ObjectSphere.of(np.asarray(true.vertices))
    spacing = protocol.spacing * sphere.radius
    aligned = (predicted_vertices, np.asarray(predicted.faces))
    missed = None
    if viewers is None:
        on_predicted, on_true = _whole_points(aligned, true, spacing)
    else:
        check_camera_scale(viewers.c2w[:, :3, 3], sphere)
        check_frames(viewers)
        on_predicted, on_true, missed = _seen_points(
            aligned, true, viewers, protocol, spacing, progress
        )
    cap = protocol.cap * sphere.radius
    to_true = SurfaceDistance(true.vertices, true.faces, spacing)
    to_predicted = SurfaceDistance(predicted_vertices, predicted.faces, spacing)
    # Where no ray meets the prediction at all, it is as inaccurate as can be.
    accuracy, true_face = to_true.nearest(on_predicted)
    accuracy = accuracy if len(on_predicted) else np.array([cap])
    completeness, predicted_face = to_predicted.nearest(on_true)
    return SurfaceErrors(
        protocol="whole surface" if viewers is None else "seen surface",
        radius=sphere.radius,
        places=on_predicted,
        accuracy=np.minimum(accuracy, cap),
        completeness=np.minimum(completeness, cap),
        cap=cap,
        threshold=protocol.threshold * sphere.radius,
        missed=missed,
        normal_consistency=_normal_consistency(
            (to_predicted, to_true),
            (on_predicted, on_true),
            (true_face, predicted_face),
            (accuracy, completeness),
            cap,
        ),
    )


def _whole_points(
    predicted: tuple[NDArray, NDArray], true: trimesh.Trimesh, spacing: float
) -> tuple[NDArray, NDArray]:
    """Points spread over both surfaces, as far as their frames fit; predicted: vertices, faces."""
    check_frames_fit(predicted[0], np.asarray(true.vertices), "the reconstruction")
    return sample_surface(*predicted, spacing), sample_surface(true.vertices, true.faces, spacing)


def _normal_consistency(
    surfaces: tuple[SurfaceDistance, SurfaceDistance],
    points: tuple[NDArray, NDArray],
    faces: tuple[NDArray, NDArray],
    distances: tuple[NDArray, NDArray],
    cap: float,
) -> float:
    """Mean |cosine| of the normals at points of both surfaces (evenly picked) nearer than `cap`.

    Args:
        surfaces: that the points lie on.
        faces: the other surface's triangles nearest to them, at `distances`.
    """
    means = []
    for own, other, cloud, face, distance in zip(
        surfaces, surfaces[::-1], points, faces, distances, strict=True
    ):
        near = np.flatnonzero(distance[: len(cloud)] < cap)
        picked = near[:: max(1, len(near) // NORMAL_SAMPLES)]
        if len(picked):
            own_normals = own.normals(own.nearest(cloud[picked])[1])
            cosine = np.einsum("ij,ij->i", own_normals, other.normals(face[picked]))
            means.append(float(np.abs(cosine).mean()))
    return float(np.mean(means)) if means else float("nan")


def check_camera_scale(centres: NDArray, sphere: ObjectSphere) -> None:
    """Refuse true cameras, centres (N, 3), whose extent cannot belong to the true mesh.

    Raises:
        InputError: with the ratio; a mistake of units is named.
    """
    ratio = camera_span(centres) / sphere.radius
    if not _SMALLEST_SPAN <= ratio <= _LARGEST_SPAN:
        raise InputError(
            f"the ground-truth cameras extend over {ratio:.3g} radii of the ground-truth mesh: "
            f"they are not in one unit{unit_guess(ratio / 3)}",
            hint="give the mesh in the frame and the unit of the cameras",
        )


def check_frames(viewers: Viewers) -> None:
    """Refuse intrinsics that are not those of the photos.

    Raises:
        InputError: a principal point lies outside its photo.
    """
    centre_px = viewers.K[:, :2, 2]
    outside = (centre_px < 0) | (centre_px > viewers.size_px - 1)
    if outside.any():
        i = int(np.flatnonzero(outside.any(axis=1))[0])
        raise InputError(
            f"the principal point {np.round(centre_px[i], 1).tolist()} of a ground-truth camera "
            f"lies outside its photo of {viewers.size_px[i].tolist()} pixels",
            hint="the ground truth's intrinsics must belong to the photos at their full size",
        )


def _seen_points(
    predicted: tuple[NDArray, NDArray],
    true: trimesh.Trimesh,
    viewers: Viewers,
    protocol: SurfaceProtocol,
    spacing: float,
    progress: Progress,
) -> tuple[NDArray, NDArray, float]:
    """First hits on the predicted mesh (A, 3), on the true one (C, 3), and the share missed.

    Both clouds hold one point in each cube of edge `spacing` (unit of the truth).
    """
    true_rays, predicted_rays = RayScene(true.vertices, true.faces), RayScene(*predicted)
    on_predicted, on_true, views_of = [], [], []
    asked = missed = 0
    for i, (K, c2w) in enumerate(zip(viewers.K, viewers.c2w, strict=True)):
        pixels = _pixel_grid(viewers.size_px[i], protocol.rays_per_view)
        origins, directions = pixel_rays(K, c2w, pixels)
        hits = true_rays.cast(origins, directions)
        points = origins[hits.hit] + directions[hits.hit] * hits.distance[hits.hit, None]
        on_true.append(points)
        views_of.append(np.full(len(points), i))
        inner = np.flatnonzero(hits.hit)
        inner = inner[_well_inside(true_rays, K, c2w, pixels[inner], protocol.margin_px)]
        found = predicted_rays.cast(origins[inner], directions[inner])
        reached = inner[found.hit]
        on_predicted.append(
            origins[reached] + directions[reached] * found.distance[found.hit, None]
        )
        asked += len(inner)
        missed += len(inner) - len(reached)
        progress.advance("surface rays", i + 1, len(viewers.K))
    true_points, first_view = np.concatenate(on_true), np.concatenate(views_of)
    kept = thin(true_points, spacing)
    true_points, first_view = true_points[kept], first_view[kept]
    seen = _seen_by_others(true_rays, true_points, first_view, viewers)
    if asked == 0 or not seen.any():
        raise InputError(
            "hardly a ray of the ground-truth cameras meets the ground-truth mesh",
            hint="check that the mesh is in the frame of the ground-truth cameras",
        )
    predicted_points = np.concatenate(on_predicted)
    return predicted_points[thin(predicted_points, spacing)], true_points[seen], missed / asked


def _pixel_grid(size_px: NDArray, count: int) -> NDArray:
    """About `count` pixel positions (P, 2), evenly spread over a photo of that width and height."""
    width, height = (int(side) for side in size_px)
    step = max(1.0, np.sqrt(width * height / count))
    x, y = np.meshgrid(np.arange(step / 2, width, step), np.arange(step / 2, height, step))
    return np.stack([x, y], axis=-1).reshape(-1, 2) - 0.5


def _well_inside(
    rays: RayScene, K: NDArray, c2w: NDArray, pixels: NDArray, margin_px: float
) -> NDArray:
    """Whether the rays `margin_px` left, right, above and below each pixel (P, 2) hit, too.

    At a silhouette's edge a fraction of a pixel decides between object and background.
    """
    inside = np.ones(len(pixels), dtype=bool)
    for offset in margin_px * np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]]):
        origins, directions = pixel_rays(K, c2w, pixels + offset)
        inside &= rays.cast(origins, directions).hit
    return inside


def _seen_by_others(
    rays: RayScene, points: NDArray, first_view: NDArray, viewers: Viewers
) -> NDArray:
    """Whether each true point (C, 3) is also in another camera's image with nothing in front."""
    tolerance = 1e-3 * ObjectSphere.of(points).radius if len(points) else 0.0
    count = np.ones(len(points), dtype=np.int64)
    for i, (K, c2w) in enumerate(zip(viewers.K, viewers.c2w, strict=True)):
        local = (points - c2w[:3, 3]) @ c2w[:3, :3]
        ahead = np.where(local[:, 2] > 0, local[:, 2], np.nan)
        xy = (local @ K.T)[:, :2] / ahead[:, None]
        with np.errstate(invalid="ignore"):
            in_image = ((xy >= -0.5) & (xy <= viewers.size_px[i] - 0.5)).all(axis=1)
        candidates = np.flatnonzero(in_image & (first_view != i) & (count < MIN_SEEN_BY))
        count[candidates] += rays.sees(c2w[:3, 3], points[candidates], tolerance)
    seen: NDArray = count >= MIN_SEEN_BY
    return seen
