"""Cleaning a raw mesh by stated rules; every step says what it removed."""

from dataclasses import asdict, dataclass, field
from typing import Any

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pipeline.errors import InputError
from pipeline.geometry.cameras import project
from pipeline.geometry.raycast import RayScene
from pipeline.progress import NullProgress, Progress
from pipeline.surface.clip import clip_below
from pipeline.surface.views import Views, see_vertices

MIN_COSINE = 0.1
"""Surface seen more aslant than this is not backed by the photo that sees it."""

FACES_DOWN = -0.5
"""Cosine to the upward direction below which a face looks down."""

CLOSING_RINGS, OPENING_RINGS = 2, 3
"""The seen part's outline is smoothed by this many rings of vertices: cracks are closed first, then
shreds removed, so that a border is one line and not lace."""

PINHOLE_AREA_FRACTION = 1e-4
"""Unseen patches smaller than this share of the surface stay: removing them only makes holes."""

MASK_VIEWS_TOLERATED = 0.1
"""Share of the views in whose masks a point may be missing (a mask or a pose may be a bit off)."""


@dataclass(frozen=True)
class Removal:
    """What one step removed.

    Attributes:
        step: its name.
        faces: number of faces removed.
        area_fraction: their share of the surface that came in.
        why: the rule, in a sentence.
    """

    step: str
    faces: int
    area_fraction: float
    why: str


@dataclass
class Cleaning:
    """A mesh on its way through the steps.

    Attributes:
        mesh: what is left.
        removals: one entry a step, also where nothing was removed.
        missed_fraction: share of the surface that photos could have seen, and too few did.
    """

    mesh: trimesh.Trimesh
    removals: list[Removal] = field(default_factory=list)
    missed_fraction: float = 0.0

    def keep(self, step: str, keep_faces: NDArray, why: str) -> None:
        """Drop all faces but `keep_faces` (F,) bool, and vertices that no face needs.

        Raises:
            InputError: nothing is left.
        """
        area = self.mesh.area_faces
        fraction = float(area[~keep_faces].sum() / max(area.sum(), 1e-30))
        self.removals.append(Removal(step, int((~keep_faces).sum()), fraction, why))
        if not keep_faces.any():
            raise InputError(
                f"no surface is left after the cleaning step '{step}': {why}",
                hint=_HINTS[step],
            )
        if not keep_faces.all():
            self.mesh = drop_faces(self.mesh, keep_faces)

    def removed(self) -> list[dict[str, Any]]:
        """The removals as plain data."""
        return [asdict(removal) for removal in self.removals]


_HINTS = {
    "region": "the region of interest misses the object: look at it in the report, and set "
    "`scene.roi_center` and `scene.roi_radius` by hand",
    "masks": "check that the masks are white on the object, or set `mesh.use_masks` to false",
    "unseen": "the training has no surface where the cameras look: train longer, or look at "
    "renders and poses in the report; `mesh.views_needed=0` keeps unseen surface",
    "backdrop": "all of it is as dark as the backdrop: `mesh.remove_backdrop=false` keeps it",
    "floaters": "lower `mesh.min_component_fraction`",
}


def drop_faces(mesh: trimesh.Trimesh, keep_faces: NDArray) -> trimesh.Trimesh:
    """A mesh of the faces `keep_faces` (F,) bool and of the vertices that these use."""
    faces = mesh.faces[keep_faces]
    used, renumbered = np.unique(faces, return_inverse=True)
    return trimesh.Trimesh(mesh.vertices[used], renumbered.reshape(-1, 3), process=False)


def clip_to_sphere(cleaning: Cleaning, radius: float = 1.0) -> None:
    """Cut off what lies outside the region of interest (normalised frame)."""
    distance = np.linalg.norm(cleaning.mesh.vertices, axis=1)
    keep = (distance <= radius)[cleaning.mesh.faces].any(axis=1)
    cleaning.keep("region", keep, "surface outside the region of interest is not trained")
    distance = np.linalg.norm(cleaning.mesh.vertices, axis=1)
    cleaning.mesh = clip_below(cleaning.mesh, distance, radius)


def count_seeing_views(
    mesh: trimesh.Trimesh, views: Views, tolerance: float, progress: Progress | None = None
) -> NDArray:
    """In how many views each vertex (V,) is seen, not too aslant; see `views.see_vertices`."""
    progress = progress or NullProgress()
    scene = RayScene(mesh.vertices, mesh.faces)
    counts = np.zeros(len(mesh.vertices), dtype=np.int64)
    for index in range(len(views)):
        sight = see_vertices(mesh, scene, views, index, tolerance)
        counts[sight.vertex[sight.cosine >= MIN_COSINE]] += 1
        progress.advance("visibility", index + 1, len(views))
    return counts


def unseen_faces(mesh: trimesh.Trimesh, seen_by: NDArray, views_needed: int) -> NDArray:
    """Faces (F,) with no vertex seen by `views_needed` views, after smoothing the seen part.

    Args:
        seen_by: (V,) number of views that see each vertex.
    """
    seen = smooth_outline(mesh, seen_by >= views_needed)
    unseen = ~seen[mesh.faces].any(axis=1)
    piece = face_pieces(mesh, unseen)
    area = np.bincount(piece[unseen], weights=mesh.area_faces[unseen])
    pinhole = area < PINHOLE_AREA_FRACTION * mesh.area
    unseen[unseen] = ~pinhole[piece[unseen]]
    return unseen


def smooth_outline(mesh: trimesh.Trimesh, marked: NDArray) -> NDArray:
    """Morphological closing, then opening, of a set of vertices (V,) bool along the edges."""
    edges = np.asarray(mesh.edges_unique)

    def grown(marked: NDArray, rings: int) -> NDArray:
        for _ in range(rings):
            reached = marked.copy()
            reached[edges[marked[edges[:, 1]], 0]] = True
            reached[edges[marked[edges[:, 0]], 1]] = True
            marked = reached
        return marked

    closed = ~grown(~grown(marked, CLOSING_RINGS), CLOSING_RINGS)
    return grown(~grown(~closed, OPENING_RINGS), OPENING_RINGS) & closed


def remove_unseen(cleaning: Cleaning, seen_by: NDArray, views_needed: int, up: NDArray) -> None:
    """Remove surface that fewer than `views_needed` cameras see: nothing in the photos backs it.

    What of it does not face down is told apart: photos could have seen it, as they never see the
    underside of an object and of what it stands on.

    Args:
        up: (3,) unit direction.
    """
    mesh = cleaning.mesh
    unseen = unseen_faces(mesh, seen_by, views_needed)
    cleaning.keep(
        "unseen", ~unseen, f"surface must be seen by at least {views_needed} of the photos"
    )
    missed = unseen & (np.asarray(mesh.face_normals) @ up > FACES_DOWN)
    cleaning.missed_fraction = float(mesh.area_faces[missed].sum() / mesh.area)


def outside_masks(vertices: NDArray, views: Views, margin_px: float) -> NDArray:
    """Vertices (V,) that the masks rule out: off the object in too many of the views they fall in.

    Args:
        margin_px: masks are widened by this much first.
    """
    off = np.zeros(len(vertices), dtype=np.int64)
    inside_image = np.zeros(len(vertices), dtype=np.int64)
    side = 2 * round(margin_px) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    for index in range(len(views)):
        mask = cv2.dilate(views.mask(index).astype(np.uint8), kernel)
        xy_px, _ = project(views.K[index], views.c2w[index], vertices)
        pixel = np.round(np.nan_to_num(xy_px, nan=-1.0)).astype(np.int64)
        x, y = pixel.T
        inside = (x >= 0) & (y >= 0) & (x < views.width) & (y < views.height)
        inside_image += inside
        off[inside] += mask[y[inside], x[inside]] == 0
    return off > np.maximum(MASK_VIEWS_TOLERATED * inside_image, 0.5)


def remove_outside_masks(cleaning: Cleaning, views: Views, margin_px: float) -> NDArray:
    """Remove faces with a vertex that the masks rule out; returns the vertices (V,) that stay."""
    before = cleaning.mesh
    keep = ~outside_masks(before.vertices, views, margin_px)[before.faces].any(axis=1)
    cleaning.keep("masks", keep, "surface must project into the masks of the object")
    stays = np.zeros(len(before.vertices), dtype=bool)
    stays[before.faces[keep]] = True
    return stays


def face_pieces(mesh: trimesh.Trimesh, among: NDArray | None = None) -> NDArray:
    """Number (F,) of the piece each face belongs to, pieces being joined by common edges.

    Args:
        among: (F,) bool, faces that count; the others are pieces of their own.
    """
    adjacency = np.asarray(mesh.face_adjacency)
    if among is not None:
        adjacency = adjacency[among[adjacency].all(axis=1)]
    count = len(mesh.faces)
    links = coo_matrix((np.ones(len(adjacency)), adjacency.T), shape=(count, count))
    pieces: NDArray = connected_components(links, directed=False)[1]
    return pieces


def remove_floaters(
    cleaning: Cleaning,
    min_fraction: float,
    sparse_points: NDArray,
    min_points: int,
    reach: float,
) -> None:
    """Remove separate pieces that are small and that the sparse points do not back.

    Args:
        min_fraction: pieces with less than this share of the largest piece's area are small.
        sparse_points: (P, 3) triangulated points of structure from motion, in the mesh's frame.
        min_points: a small piece stays if this many sparse points lie on it.
        reach: how far from the surface a sparse point may lie and still be on it (mesh units).
    """
    mesh = cleaning.mesh
    piece = face_pieces(mesh)
    area = np.bincount(piece, weights=mesh.area_faces)
    support = np.zeros(len(area), dtype=np.int64)
    if len(sparse_points):
        distance, nearest_face = cKDTree(mesh.triangles_center).query(
            sparse_points, distance_upper_bound=reach
        )
        support = np.bincount(piece[nearest_face[np.isfinite(distance)]], minlength=len(area))
    stays = (area >= min_fraction * area.max()) | (support >= min_points)
    cleaning.keep(
        "floaters",
        stays[piece],
        f"separate pieces below {min_fraction:.1%} of the largest one, "
        f"with fewer than {min_points} sparse points on them",
    )
