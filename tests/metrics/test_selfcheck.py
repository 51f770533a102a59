"""Measures that need no ground truth, on a ball whose answers are known."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipeline.formats.idr import IdrCameras, load_idr_cameras, make_scale_mat, to_world
from pipeline.formats.matches import ViewMatches
from pipeline.geometry.cameras import project
from pipeline.metrics.selfcheck import check_surface
from pipeline.metrics.tracks import reprojection_errors_px, tracks_of
from pipeline.metrics.truth import load_mesh
from tests.surface.analytic_scene import HEIGHT, WIDTH, K, photograph, ring

SCALE_MAT = make_scale_mat(np.array([1.0, 2, 3]), 5.0)
VIEWS = 8


@pytest.fixture(scope="module")
def cameras():
    return IdrCameras(np.tile(K, (VIEWS, 1, 1)), to_world(ring(VIEWS), SCALE_MAT), SCALE_MAT)


def _world(points):
    return points * 5.0 + SCALE_MAT[:3, 3]


def _balls(radius: float = 0.4) -> trimesh.Trimesh:
    large = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    small = trimesh.creation.icosphere(subdivisions=3, radius=0.12)
    small.apply_translation([0.55, 0, 0.2])
    both = trimesh.util.concatenate([large, small])
    return trimesh.Trimesh(_world(both.vertices), both.faces, process=False)


def _directions(count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    d = rng.normal(size=(count, 3))
    return d / np.linalg.norm(d, axis=1, keepdims=True)


def test_sparse_points_and_coverage(cameras):
    on, off = _world(0.41 * _directions(300)), _world(0.9 * _directions(100))
    outside = _world(1.5 * _directions(50))
    check = check_surface(
        _balls(), cameras, (WIDTH, HEIGHT), np.concatenate([on, off, outside]), None
    )
    assert len(check.sparse_distance) == 400, "what lies outside the region does not count"
    assert np.median(check.sparse_distance) == pytest.approx(0.01, abs=0.002)
    assert check.covered == pytest.approx(0.75, abs=0.05)
    assert check.silhouette_iou is None
    assert 2 <= np.median(check.views_per_place) <= 6
    empty = check_surface(_balls(), cameras, (WIDTH, HEIGHT), np.zeros((0, 3)), None)
    assert np.isnan(empty.covered) and len(empty.sparse_distance) == 0


def test_silhouettes(cameras, tmp_path):
    paths = []
    for index, c2w in enumerate(ring(VIEWS)):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(photograph(c2w)[1]).convert("L").save(paths[-1])
    none = np.zeros((0, 3))
    good = check_surface(_balls(), cameras, (WIDTH, HEIGHT), none, paths).silhouette_iou
    fat = check_surface(_balls(0.44), cameras, (WIDTH, HEIGHT), none, paths).silhouette_iou
    assert good.min() > 0.95
    assert fat.mean() < good.mean() - 0.08


@pytest.mark.parametrize("name", ["render_bowl", "render_plant"])
def test_the_true_mesh_fills_the_masks(shared, name):
    folder = shared / "data" / name
    if not (folder / "mask").is_dir():
        pytest.skip(f"{name} has no masks here")
    true, mesh = load_idr_cameras(folder / "cameras.npz"), load_mesh(folder / "mesh_gt.ply")
    masks = sorted((folder / "mask").iterdir())
    size, none = Image.open(masks[0]).size, np.zeros((0, 3))
    iou = check_surface(mesh, true, size, none, masks).silhouette_iou
    assert len(iou) == len(masks)
    assert iou.min() > 0.99
    turned = check_surface(mesh, true, size, none, masks[1:] + masks[:1]).silhouette_iou
    assert turned.mean() < 0.9, "masks of other views do not fit"


def _matches(points: np.ndarray, cameras: IdrCameras) -> list[ViewMatches]:
    """Every view with the next two, exact."""
    seen = [project(k, c, points)[0] for k, c in zip(cameras.K, cameras.c2w, strict=True)]
    views = []
    for ref in range(VIEWS):
        sources = [(ref + 1) % VIEWS, (ref + 2) % VIEWS]
        rows = [np.c_[seen[ref], seen[src]].astype(np.float32) for src in sources]
        views.append(ViewMatches(sources, rows, [np.zeros(len(r), dtype=bool) for r in rows]))
    return views


def test_tracks_join_and_reproject(cameras):
    points = _world(0.4 * _directions(40))
    tracks = tracks_of(_matches(points, cameras))
    assert len(tracks) == 40 and len(tracks.point) == 40 * VIEWS
    errors = reprojection_errors_px(tracks, cameras.K, cameras.c2w)
    assert errors.max() < 0.05, "keypoints are rounded to 1/64 pixel"
    shifted = cameras.K.copy()
    shifted[::2, 0, 2] += 3.0
    assert np.median(reprojection_errors_px(tracks, shifted, cameras.c2w)) > 0.5


def test_contradictory_tracks_are_left_out(cameras):
    points = _world(0.4 * _directions(10))
    matches = _matches(points, cameras)
    matches[0].matches_px[0][0, 2:] = matches[0].matches_px[0][1, 2:]  # two points become one
    assert len(tracks_of(matches)) == 8
    assert len(tracks_of([ViewMatches([], [], [])] * VIEWS)) == 0
