import json
import struct

import numpy as np
import pytest
import trimesh

from pipeline.progress import NullProgress
from pipeline.surface.build import build_surface
from pipeline.surface.config import MeshConfig
from pipeline.surface.glb import rotation_to_y_up, save_glb, srgb_to_linear
from pipeline.surface.save import mean_camera_up, save_surface
from tests.surface.analytic_scene import balls, make_views, ring


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mesh")
    views = make_views(tmp_path_factory.mktemp("scene"))
    scale_mat = np.diag([3.0, 3.0, 3.0, 1.0])
    scale_mat[:3, 3] = [10.0, -20.0, 5.0]
    config = MeshConfig(resolution=64)
    surface = build_surface(
        balls, views, scale_mat, np.zeros((0, 3)), config, "cpu", NullProgress()
    )
    save_surface(folder, surface, np.array([0.0, 0, 1]))
    return folder, surface


def test_ply_is_in_the_world_frame_with_colours(built):
    folder, surface = built
    mesh = trimesh.load(folder / "mesh.ply", process=False)
    assert np.allclose(mesh.vertices, surface.mesh.vertices, atol=1e-5)
    assert np.array_equal(mesh.visual.vertex_colors[:, :3], surface.colours.rgb)
    centre = np.array([10.0, -20.0, 5.0])
    radii = np.linalg.norm(mesh.vertices - centre, axis=1)
    assert radii.min() == pytest.approx(3 * 0.4, abs=0.03)
    assert (folder / "mesh.ply").read_bytes().startswith(b"ply\nformat binary_little_endian")


def test_glb_opens_right_way_up(built):
    folder, surface = built
    scene = trimesh.load(folder / "mesh.glb")
    mesh = scene.to_geometry() if hasattr(scene, "to_geometry") else scene.dump(concatenate=True)
    assert len(mesh.faces) == len(surface.mesh.faces)
    # world z is up: it becomes glTF's y, and the mesh stands on the ground
    extent = surface.mesh.bounds[1] - surface.mesh.bounds[0]
    assert np.allclose(mesh.bounds[1] - mesh.bounds[0], extent[[0, 2, 1]], atol=1e-3)
    assert mesh.bounds[0][1] == pytest.approx(0, abs=1e-4)
    heights = surface.mesh.vertices[:, 2] - surface.mesh.vertices[:, 2].min()
    assert np.allclose(mesh.vertices[:, 1], heights, atol=1e-3)


def test_glb_is_in_metres_where_the_unit_is_known(built, tmp_path):
    _, surface = built
    save_surface(tmp_path, surface, np.array([0.0, 0, 1]), unit="mm")
    scene, mesh = trimesh.load(tmp_path / "mesh.glb"), surface.mesh
    extent = (mesh.bounds[1] - mesh.bounds[0])[[0, 2, 1]]
    assert np.allclose(scene.bounds[1] - scene.bounds[0], extent / 1000, atol=1e-5)
    assert scene.bounds[0][1] == pytest.approx(0, abs=1e-6)
    world = trimesh.load(tmp_path / "mesh.ply", process=False)
    assert np.allclose(world.vertices, mesh.vertices, atol=1e-5), "the PLY stays in the world frame"


def test_glb_follows_the_format(built):
    content = (built[0] / "mesh.glb").read_bytes()
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    json_length, kind = struct.unpack_from("<I4s", content, 12)
    assert kind == b"JSON"
    document = json.loads(content[20 : 20 + json_length])
    binary_length = struct.unpack_from("<I", content, 20 + json_length)[0]
    assert document["buffers"][0]["byteLength"] <= binary_length
    for view in document["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert view["byteOffset"] + view["byteLength"] <= binary_length
    material = document["materials"][0]
    assert material["doubleSided"] is True
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0


def test_glb_stores_linear_colours(tmp_path):
    vertices = np.eye(3)
    rgb = np.array([[255, 0, 128]] * 3, dtype=np.uint8)
    save_glb(
        tmp_path / "t.glb", vertices, vertices, np.array([[0, 1, 2]]), rgb, np.array([0, 1, 0])
    )
    content = (tmp_path / "t.glb").read_bytes()
    stored = np.frombuffer(content[-24 - 12 : -12], dtype="<u2").reshape(3, 4)[0] / 65535
    assert np.allclose(stored, [1.0, 0.0, 0.2158, 1.0], atol=1e-3)
    assert srgb_to_linear(np.array([10]))[0] == pytest.approx(10 / 255 / 12.92)


@pytest.mark.parametrize("up", [[0, 0, 1], [0, -1, 0], [1, 2, -3], [0, 1, 0]])
def test_rotation_to_y_up(up):
    rotation = rotation_to_y_up(np.array(up, dtype=float))
    assert np.allclose(rotation @ np.array(up) / np.linalg.norm(up), [0, 1, 0])
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_mean_camera_up(built):
    up = mean_camera_up(ring())
    assert np.allclose(up, [0, 0, 1], atol=1e-6)


def test_figures_say_what_was_done(built):
    _, surface = built
    figures = surface.figures
    assert [r["step"] for r in figures["removed"]] == ["region", "unseen", "floaters"]
    assert figures["faces"] == len(surface.mesh.faces)
    assert figures["pieces"] == 2
    assert figures["outward_fraction"] > 0.99
    assert figures["back_facing_fraction"] < 0.02
    assert figures["field_evaluations"] < figures["dense_evaluations"]
    assert not surface.warnings
    json.dumps(figures)
