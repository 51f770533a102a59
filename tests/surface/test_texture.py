"""Textures of the analytic scene, whose true colours are known everywhere."""

import json
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipeline.progress import NullProgress
from pipeline.surface.build import build_surface
from pipeline.surface.config import MeshConfig
from pipeline.surface.levelling import level_seams
from pipeline.surface.save import save_surface
from pipeline.surface.texture import TexturedMesh, texture_mesh
from pipeline.surface.unwrap import unwrap
from pipeline.surface.view_choice import UNSEEN, best_views, choose_views
from tests.surface.analytic_scene import balls, make_views, paint

TOLERANCE = 0.05


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return make_views(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def surface(views):
    config = MeshConfig(resolution=64, texture=True, texture_size=512)
    return build_surface(balls, views, np.eye(4), np.zeros((0, 3)), config, "cpu", NullProgress())


def _at_vertices(textured: TexturedMesh) -> np.ndarray:
    """Colours (W, 3) that the texture has where the corner points are."""
    height, width = textured.picture.shape[:2]
    xy = np.clip(np.floor(textured.uv * [width, height]), 0, [width - 1, height - 1]).astype(int)
    return textured.picture[xy[:, 1], xy[:, 0]].astype(float)


def test_texture_shows_the_true_colours(surface):
    textured, mesh = surface.textured, surface.mesh
    true = paint(mesh.vertices[textured.vertex])
    error = np.abs(_at_vertices(textured) - true).mean(axis=1)
    assert np.median(error) < 6
    assert (error > 60).mean() < 0.06, "the small ball's outline"
    assert textured.figures["seen_area_fraction"] > 0.9
    assert np.array_equal(textured.vertex[textured.faces], mesh.faces)


def test_what_stands_in_front_does_not_print_on_what_is_behind(surface):
    textured, mesh = surface.textured, surface.mesh
    points = mesh.vertices[textured.vertex]
    behind = np.linalg.norm(points, axis=1) < 0.45
    red = (_at_vertices(textured) - [250, 10, 10])[behind]
    true_red = (paint(points) - [250, 10, 10])[behind]
    assert (np.abs(red).max(axis=1) < 50).mean() <= (
        np.abs(true_red).max(axis=1) < 50
    ).mean() + 0.01


def test_charts_do_not_overlap_and_fit(surface):
    textured = surface.textured
    assert textured.uv.min() >= 0 and textured.uv.max() <= 1
    assert max(textured.picture.shape) <= 512
    a, b, c = textured.uv[textured.faces].transpose(1, 0, 2)
    e, f = b - a, c - a
    area = np.abs(e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]).sum() / 2
    assert 0.2 < area < 1.0


def test_neighbours_prefer_one_photo(surface, views):
    mesh = surface.mesh
    candidates = best_views(mesh, views, TOLERANCE)
    label = choose_views(mesh, candidates)
    edges = mesh.face_adjacency
    best = candidates.view[:, 0]
    seams = (label[edges[:, 0]] != label[edges[:, 1]]).mean()
    assert seams < 0.9 * (best[edges[:, 0]] != best[edges[:, 1]]).mean()
    seen = label != UNSEEN
    assert (candidates.view[seen] == label[seen, None]).any(axis=1).all(), "only views that see it"


def test_exposures_are_evened_out(surface, views, tmp_path):
    (tmp_path / "image").mkdir()
    paths = []
    for index in range(len(views)):
        shifted = np.clip(views.image(index).astype(int) + 24 * (-1) ** index, 0, 255)
        paths.append(tmp_path / f"image/{index:03d}.png")
        Image.fromarray(shifted.astype(np.uint8)).save(paths[-1])
    uneven = type(views)(views.K, views.c2w, paths, [], views.width, views.height)
    textured = texture_mesh(surface.mesh, uneven, surface.colours.rgb, TOLERANCE, 512)
    colours = _at_vertices(textured)
    order = np.argsort(textured.vertex, kind="stable")
    same = textured.vertex[order][1:] == textured.vertex[order][:-1]
    step = np.abs(colours[order][1:] - colours[order][:-1])[same].mean()
    assert step < 25, "photos differ by 48 grey levels where they meet"
    assert textured.figures["mean_correction"] > 5


def test_levelling_joins_two_patches():
    """Two strips of three vertices that share their middle column, 40 grey levels apart."""
    vertex = np.array([0, 1, 2, 3, 2, 3, 4, 5])
    faces = np.array([[0, 1, 2], [1, 3, 2], [4, 5, 6], [5, 7, 6]])
    colour = np.repeat([[100.0] * 3, [140.0] * 3], 4, axis=0)
    level = colour + level_seams(colour, vertex, faces)
    assert np.abs(level[2] - level[4]).max() < 1
    assert level.mean() == pytest.approx(120, abs=2)


def test_unseen_faces_keep_a_place(surface, views):
    mesh = surface.mesh
    label = np.full(len(mesh.faces), UNSEEN)
    label[: len(label) // 2] = 0
    charts = unwrap(mesh, label, views, 512)
    assert np.isfinite(charts.uv_px).all()
    assert np.array_equal(charts.vertex[charts.faces], mesh.faces)


def test_textured_files_open(surface, tmp_path):
    save_surface(tmp_path, surface, np.array([0.0, 0, 1]), with_obj=True)
    content = (tmp_path / "mesh_textured.glb").read_bytes()
    assert struct.unpack_from("<4sII", content) == (b"glTF", 2, len(content))
    length = struct.unpack_from("<I", content, 12)[0]
    document = json.loads(content[20 : 20 + length])
    assert document["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"] == {"index": 0}
    for name in ("mesh_textured.glb", "mesh.obj"):
        loaded = trimesh.load(tmp_path / name)
        if isinstance(loaded, trimesh.Scene):
            loaded = loaded.to_geometry()
        assert len(loaded.faces) == len(surface.mesh.faces), name
        picture = loaded.visual.material
        picture = getattr(picture, "baseColorTexture", None) or picture.image
        assert picture.size == tuple(surface.textured.picture.shape[1::-1])
        colours = np.asarray(loaded.visual.to_color().vertex_colors)[:, :3].astype(float)
        if name == "mesh.obj":
            _, nearest = trimesh.proximity.ProximityQuery(surface.mesh).vertex(loaded.vertices)
            true = paint(surface.mesh.vertices[nearest])
            assert np.median(np.abs(colours - true)) < 10


def test_obj_without_texture_has_colours(views, tmp_path):
    config = MeshConfig(resolution=64)
    plain = build_surface(balls, views, np.eye(4), np.zeros((0, 3)), config, "cpu", NullProgress())
    save_surface(tmp_path, plain, np.array([0.0, 0, 1]), with_obj=True)
    assert not (tmp_path / "mesh_texture.png").exists()
    loaded = trimesh.load(tmp_path / "mesh.obj", process=False)
    assert len(loaded.faces) == len(plain.mesh.faces)
    assert "newmtl surface" in (tmp_path / "mesh.mtl").read_text()
