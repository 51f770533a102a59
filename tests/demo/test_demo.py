"""The demo's photos and its truth must describe the same world, to a fraction of a pixel."""

import json

import numpy as np
import pycolmap
import pytest
import trimesh
from PIL import Image
from scipy.ndimage import map_coordinates

from pipeline.demo import render_demo
from pipeline.demo.camera import Lens, demo_lens, walk_around
from pipeline.demo.shape import object_mesh, signed_distance
from pipeline.demo.texture import ground_texture
from pipeline.errors import InputError
from pipeline.formats.idr import load_idr_cameras
from pipeline.geometry.cameras import invert_pose
from pipeline.geometry.raycast import RayScene

VIEWS, WIDTH, HEIGHT = 5, 240, 180


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    render_demo(out, views=VIEWS, width=WIDTH, height=HEIGHT, seed=3, supersample=2)
    return out


def _lens_of(folder) -> Lens:
    stored = json.loads((folder / "truth/camera.json").read_text())
    names = ("width", "height", "focal_px", "cx_px", "cy_px", "k1", "k2")
    return Lens(**{name: stored[name] for name in names})


def test_lens_distorts_and_undistorts():
    lens = demo_lens(640, 480)
    corners = np.array([[0, 0], [639, 0], [0, 479], [639, 479], [333.0, 227]])
    directions = lens.directions(corners)
    assert np.allclose(lens.project(3.7 * directions), corners, atol=1e-9)
    straight = directions @ lens.K.T
    moved = np.linalg.norm(straight[:, :2] / straight[:, 2:] - corners, axis=1)
    assert moved[:4].min() > 3.0, "distortion is visible in the corners"
    off_centre = np.abs([(lens.cx_px - 319.5) / 640, (lens.cy_px - 239.5) / 480])
    assert (off_centre > 0.01).all() and (off_centre < 0.05).all()


@pytest.mark.parametrize("views", [10, 20, 28])
def test_neighbours_on_the_walk_overlap(views):
    target = np.array([0.0, 0, 0.5])
    c2w = walk_around(np.random.default_rng(0), views, target, 3.0)
    assert c2w.shape == (views, 4, 4)
    assert np.allclose(np.linalg.det(c2w[:, :3, :3]), 1)
    toward = target - c2w[:, :3, 3]
    toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    assert (np.sum(toward * c2w[:, :3, 2], axis=1) > np.cos(np.deg2rad(4))).all()
    between = np.degrees(np.arccos(np.clip(toward @ toward.T, -1, 1)))
    np.fill_diagonal(between, 180)
    assert between.min(axis=1).max() < 40


def test_object_has_concave_parts_and_holes():
    bowl, rim, handle_hole, belly = signed_distance(
        np.array([[-0.16, 0, 0.9], [-0.16, 0.36, 1.06], [-0.80, 0, 0.66], [-0.1, 0, 0.55]])
    )
    assert bowl > 0 and handle_hole > 0
    assert rim < 0 and belly < 0
    mesh = object_mesh(0.03)
    assert mesh.is_watertight
    assert mesh.body_count == 1
    assert mesh.euler_number <= 0, "at least one handle"
    assert mesh.volume < 0.6 * mesh.convex_hull.volume
    with pytest.raises(InputError, match="voxel"):
        object_mesh(1.0)


def test_same_seed_same_photo_other_seed_other_photo(tiny, tmp_path):
    again = render_demo(tmp_path / "a", views=VIEWS, width=WIDTH, height=HEIGHT, seed=3)
    assert sorted(p.name for p in again.iterdir()) == [f"IMG_{i:04d}.jpg" for i in range(1, 6)]
    for path in again.iterdir():
        assert path.read_bytes() == (tiny / "photos" / path.name).read_bytes()
    one, other = (ground_texture(np.random.default_rng(seed), 128) for seed in (3, 4))
    assert np.abs(one - other).mean() > 0.05


def test_photos_look_like_a_camera_took_them(tiny):
    photo = Image.open(tiny / "photos/IMG_0001.jpg")
    assert photo.size == (WIDTH, HEIGHT)
    exif = photo.getexif()
    assert exif[0x0110] == "Demo"
    focal_35mm = exif.get_ifd(0x8769)[0xA405]
    assert abs(focal_35mm / 36 * WIDTH / _lens_of(tiny).focal_px - 1) < 0.03
    image = np.asarray(photo)
    assert 60 < image.mean() < 200
    assert (image >= 254).mean() < 0.02


def test_truth_agrees_with_itself(tiny):
    names = json.loads((tiny / "truth/image_names.json").read_text())
    assert names == sorted(p.name for p in (tiny / "photos").iterdir())
    cameras = load_idr_cameras(tiny / "truth/cameras.npz")
    assert len(cameras) == VIEWS
    assert np.allclose(cameras.K, _lens_of(tiny).K, atol=1e-9)
    mesh = trimesh.load(tiny / "truth/mesh_gt.ply", process=False)
    away = np.linalg.norm(mesh.vertices - cameras.centre, axis=1).max()
    assert away == pytest.approx(cameras.radius, rel=1e-5)
    scene = trimesh.load(tiny / "truth/scene_gt.ply", process=False)
    assert np.allclose(scene.vertices[: len(mesh.vertices)], mesh.vertices)
    assert len(scene.faces) > len(mesh.faces)


def test_a_surface_point_has_one_colour_in_all_photos(tiny):
    """Photo consistency through the written cameras: an error of a pixel would spoil it."""
    lens, cameras = _lens_of(tiny), load_idr_cameras(tiny / "truth/cameras.npz")
    scene = trimesh.load(tiny / "truth/scene_gt.ply", process=False)
    rays = RayScene(scene.vertices, scene.faces)
    photos = [np.asarray(Image.open(tiny / f"photos/IMG_{i + 1:04d}.jpg"), float) for i in (1, 2)]
    rng = np.random.default_rng(0)
    pixels = np.stack([rng.uniform(20, WIDTH - 21, 3000), rng.uniform(60, HEIGHT - 21, 3000)], 1)
    c2w = cameras.c2w[1]
    hits = rays.cast(c2w[:3, 3], lens.directions(pixels) @ c2w[:3, :3].T)
    directions = lens.directions(pixels) @ c2w[:3, :3].T
    points = c2w[:3, 3] + directions[hits.hit] * hits.distance[hits.hit, None]
    seen = rays.sees(cameras.c2w[2][:3, 3], points, tolerance=5e-5)

    def colours(shift_px: float) -> np.ndarray:
        w2c = invert_pose(cameras.c2w[2])
        there = lens.project(points[seen] @ w2c[:3, :3].T + w2c[:3, 3]) + shift_px
        return np.stack(
            [map_coordinates(photos[1][..., c], there[:, ::-1].T, order=1) for c in range(3)], 1
        )

    here = np.stack(
        [
            map_coordinates(photos[0][..., c], pixels[hits.hit][seen][:, ::-1].T, order=1)
            for c in range(3)
        ],
        1,
    )
    error = {shift: np.abs(here - colours(shift)).mean() for shift in (-0.7, 0.0, 0.7)}
    assert seen.sum() > 1000
    assert error[0.0] < 0.85 * min(error[-0.7], error[0.7])


def test_refuses_nonsense(tmp_path):
    with pytest.raises(InputError, match="2 views"):
        render_demo(tmp_path, views=2)
    with pytest.raises(InputError, match="30"):
        render_demo(tmp_path, width=30)


@pytest.mark.slow
def test_sift_registers_every_view(tmp_path):
    photos = render_demo(tmp_path, views=10, width=320, height=240)
    database = tmp_path / "database.db"
    pycolmap.extract_features(database, photos, camera_mode=pycolmap.CameraMode.SINGLE)
    pycolmap.match_exhaustive(database)
    models = pycolmap.incremental_mapping(database, photos, tmp_path / "sparse")
    assert max(model.num_reg_images() for model in models.values()) == 10
