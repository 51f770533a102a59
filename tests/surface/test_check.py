import numpy as np
import pytest
import torch
import trimesh

from pipeline.errors import InputError
from pipeline.geometry.raycast import RayScene
from pipeline.progress import NullProgress
from pipeline.surface.build import build_surface
from pipeline.surface.check import measure_shape, shape_verdicts, shape_warnings
from pipeline.surface.clean import Cleaning, clip_to_sphere
from pipeline.surface.config import MeshConfig
from pipeline.surface.extract import extract_mesh
from pipeline.surface.views import back_facing_fraction
from tests.surface.analytic_scene import balls, make_views


def clipped(sdf, resolution=96):
    extraction = extract_mesh(sdf, resolution)
    cleaning = Cleaning(extraction.mesh)
    clip_to_sphere(cleaning)
    return measure_shape(cleaning.mesh, extraction.cell)


def test_a_closed_object_has_no_cut():
    shape = clipped(balls)
    assert shape.watertight
    assert shape.cut_edges == 0
    assert shape.pieces == 2
    assert shape_warnings(shape, 0.0) == []


def test_a_table_that_ends_at_the_boundary_is_no_warning():
    shape = clipped(lambda x: torch.minimum(x[:, 2] + 0.3, balls(x)))
    assert shape.cut_edges > 0
    assert shape.cut_flatness is not None and shape.cut_flatness < 0.03
    assert shape_warnings(shape, 0.0) == []


def test_an_object_that_leaves_the_region_is_a_warning():
    shape = clipped(lambda x: (x - x.new_tensor([0.8, 0.0, 0.0])).norm(dim=1) - 0.6)
    tall = clipped(lambda x: torch.minimum(x[:, 2] + 0.3, x[:, :2].norm(dim=1) - 0.2))
    assert any("cut" in text for text in shape_warnings(tall, 0.0))
    assert shape.cut_edges > 0


def test_an_inside_out_surface_is_a_warning(tmp_path):
    views = make_views(tmp_path)
    mesh = extract_mesh(balls, 64).mesh
    right = back_facing_fraction(RayScene(mesh.vertices, mesh.faces), views)
    wrong = back_facing_fraction(RayScene(mesh.vertices, mesh.faces[:, ::-1]), views)
    assert right < 0.01
    assert wrong > 0.99
    shape = measure_shape(mesh, 2 / 64)
    assert any("inside out" in text for text in shape_warnings(shape, wrong))


def test_non_manifold_edges_are_counted():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1.0]]) * 0.2
    fan = trimesh.Trimesh(vertices, [[0, 1, 2], [0, 1, 3], [0, 1, 4]], process=False)
    shape = measure_shape(fan, 0.01)
    assert shape.non_manifold_edges == 1
    assert any("more than two faces" in text for text in shape_warnings(shape, 0.0))


def test_a_field_without_surface_is_refused_with_advice(tmp_path):
    views = make_views(tmp_path)
    with pytest.raises(InputError, match="no surface") as error:
        build_surface(
            lambda x: x.norm(dim=1) + 1,
            views,
            np.eye(4),
            np.zeros((0, 3)),
            MeshConfig(resolution=32),
            "cpu",
            NullProgress(),
        )
    assert error.value.hint


def test_verdicts_by_name():
    closed = clipped(balls)
    assert not any(shape_verdicts(closed, 0.0, 1.0).values())
    table = clipped(lambda x: torch.minimum(x[:, 2] + 0.3, balls(x)))
    found = shape_verdicts(table, 0.0, 1.0)
    assert found["touches_boundary"] and not found["object_cut"]
    tall = clipped(lambda x: torch.minimum(x[:, 2] + 0.3, x[:, :2].norm(dim=1) - 0.2))
    assert shape_verdicts(tall, 0.0, 1.0)["object_cut"]
    assert shape_verdicts(closed, 0.9, 1.0)["inside_out"]
    assert shape_verdicts(closed, 0.0, 0.1)["inside_out"]
