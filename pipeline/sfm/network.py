"""Where the net of photos is thin: weak links, and gaps between neighbouring cameras."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

from pipeline.sfm.colmap import c2w_of, registered_ids
from pipeline.sfm.twoview import TwoViewTable

WEAK_POINTS = 30
"""Photos joined to the others by fewer common points than this hang loosely."""
LOOSE_POINTS = 16
"""A single photo that hangs by fewer than this is left out: 15 matches are what a verified pair of
photos needs at least, and that much chance holds no camera."""
GAP_DEG, GAP_RATIO = 20.0, 2.5
"""A gap is wider than this and than so many times the usual step."""
WIDE_DEG = 35.0
"""SIFT matches little beyond this angle, whatever the usual step is."""
MAX_VIEWS = 1000
"""Gaps are not looked for among more: time grows with the cube."""
CONVERGENT_SHARE, CONVERGENT_DEG = 0.8, 45.0
"""Cameras look at one thing if so many see its middle within this angle of their axis."""


@dataclass(frozen=True)
class WeakLink:
    """A group of photos that few common points hold to all others.

    Attributes:
        first, second: the photo of the group and the one outside it that share most.
        group: photos of the smaller side, by name.
        points: sparse points that `first` and `second` share.
    """

    first: str
    second: str
    group: list[str]
    points: int


@dataclass(frozen=True)
class Gap:
    """Neighbouring cameras that see the object from directions `angle_deg` apart."""

    first: str
    second: str
    angle_deg: float


@dataclass(frozen=True)
class Network:
    """How well the registered photos hold together.

    Attributes:
        median_step_deg: usual angle between neighbouring cameras, seen from what they look at;
            None where they do not look at one thing.
    """

    weak_links: list[WeakLink]
    gaps: list[Gap]
    median_step_deg: float | None

    def as_json(self) -> dict[str, Any]:
        """For `sfm.json`."""
        return asdict(self)


def inspect_network(model: pycolmap.Reconstruction, names: dict[int, str]) -> Network:
    """Weak links and gaps of a model.

    Args:
        names: photo name by image id.
    """
    ids = registered_ids(model)
    photos = [names[i] for i in ids]
    gaps, step_deg = _gaps(model, ids, photos)
    return Network(_weak_links(_shared_points(model, ids), photos), gaps, step_deg)


def leave_out_loose(model: pycolmap.Reconstruction) -> dict[str, int]:
    """Deregister single photos that share too few points with every other.

    Global mapping places what incremental mapping would refuse (it asks for 30 inliers), and such
    cameras may be off by several times the error of the others.

    Returns:
        The most points that each shared with another photo, by file name.
    """
    left_out: dict[str, int] = {}
    while True:
        ids = registered_ids(model)
        most = _shared_points(model, ids).max(axis=1)
        loosest = int(most.argmin())
        if len(ids) <= 2 or most[loosest] >= LOOSE_POINTS:
            return left_out
        image = model.image(ids[loosest])
        left_out[image.name] = int(most[loosest])
        model.deregister_frame(image.frame_id)
        model.tear_down()  # what has no pose may not stay in a model


def best_partner(table: TwoViewTable, image_ids: set[int], others: set[int]) -> tuple[int, int]:
    """The pair from `image_ids` and `others` with the most verified matches; (0, 0) if none."""
    best, most = (0, 0), 0
    for pair in table.pairs:
        for a, b in ((pair.image1, pair.image2), (pair.image2, pair.image1)):
            if a in image_ids and b in others and len(pair.features) > most:
                best, most = (a, b), len(pair.features)
    return best


def _shared_points(model: pycolmap.Reconstruction, ids: list[int]) -> NDArray[np.int64]:
    """(N, N) number of sparse points that two photos both see."""
    column = {point_id: n for n, point_id in enumerate(sorted(model.point3D_ids()))}
    rows, columns = [], []
    for n, image_id in enumerate(ids):
        seen = {p.point3D_id for p in model.image(image_id).get_observation_points2D()}
        rows += [n] * len(seen)
        columns += [column[point_id] for point_id in seen]
    ones = np.ones(len(rows), dtype=np.int64)
    sees = csr_matrix((ones, (rows, columns)), shape=(len(ids), len(column)))
    shared = np.asarray((sees @ sees.T).todense())
    np.fill_diagonal(shared, 0)
    return shared


def _weak_links(shared: NDArray[np.int64], photos: list[str]) -> list[WeakLink]:
    """Edges of the strongest spanning tree that are weak all the same."""
    most = int(shared.max()) + 1
    cost = np.where(shared > 0, most - shared, 0)
    tree = minimum_spanning_tree(csr_matrix(cost)).toarray() > 0
    links = []
    for i, j in np.argwhere(tree):
        if shared[i, j] >= WEAK_POINTS:
            continue
        rest = tree.copy()
        rest[i, j] = False
        label = connected_components(csr_matrix(rest), directed=False)[1]
        ends = sorted((int(i), int(j)), key=lambda end: int((label == label[end]).sum()))
        own = label == label[ends[0]]
        group = [photo for photo, inside in zip(photos, own, strict=True) if inside]
        links.append(WeakLink(photos[ends[0]], photos[ends[1]], group, int(shared[i, j])))
    return sorted(links, key=lambda link: (link.points, link.first))


def _gaps(
    model: pycolmap.Reconstruction, ids: list[int], photos: list[str]
) -> tuple[list[Gap], float | None]:
    directions = _directions(model, ids) if len(ids) <= MAX_VIEWS else None
    if directions is None:
        return [], None
    angles = np.degrees(np.arccos(np.clip(directions @ directions.T, -1, 1)))
    edges = _relative_neighbours(angles)
    steps = np.array([angles[i, j] for i, j in edges])
    usual = float(np.median(steps))
    limit = min(max(GAP_DEG, GAP_RATIO * usual), max(WIDE_DEG, usual))
    wide = [(float(angles[i, j]), i, j) for i, j in edges if angles[i, j] > limit]
    found = sorted(wide, key=lambda gap: -gap[0])
    return [Gap(photos[i], photos[j], angle) for angle, i, j in found], usual


def _directions(model: pycolmap.Reconstruction, ids: list[int]) -> NDArray[np.float64] | None:
    """(N, 3) from the middle of what all look at to the cameras; None if there is no such thing."""
    c2w = np.stack([c2w_of(model.image(i)) for i in ids])
    centres, axes = c2w[:, :3, 3], c2w[:, :3, 2]
    # the point nearest to all optical axes
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    middle = np.linalg.lstsq(across.sum(0), np.einsum("nij,nj->i", across, centres), rcond=None)[0]
    outward = centres - middle
    distance = np.linalg.norm(outward, axis=1, keepdims=True)
    if distance.min() < 1e-9 * distance.max():
        return None
    directions = outward / distance
    facing = -np.einsum("ni,ni->n", directions, axes)
    if np.mean(facing > np.cos(np.radians(CONVERGENT_DEG))) < CONVERGENT_SHARE:
        return None
    return np.asarray(directions)


def _relative_neighbours(angles: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Pairs with no third one nearer to both (Toussaint, "The relative neighbourhood graph", 1980).

    On a ring these are the next in either direction; the ends of an arc of more than 240° too, but
    not those of a shorter one, which was not meant to close.
    """
    edges = []
    for i, own in enumerate(angles):
        # [j, k]: k lies nearer to i and to j than these to each other
        nearer = np.maximum(own[None, :], angles) < own[:, None]
        nearer[:, i] = False
        np.fill_diagonal(nearer, False)
        edges += [(i, int(j)) for j in np.flatnonzero(~nearer.any(axis=1)) if j > i]
    return edges
