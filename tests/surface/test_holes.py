import numpy as np
import trimesh

from pipeline.surface.holes import fill_holes, open_loops
from pipeline.surface.simplify import simplify


def _holed() -> trimesh.Trimesh:
    """A ball of radius 0.5 with a narrow and a wide hole."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    top, side = ball.triangles_center[:, 2] > 0.495, ball.triangles_center[:, 0] > 0.4
    ball.update_faces(~top & ~side)
    ball.remove_unreferenced_vertices()
    return trimesh.Trimesh(ball.vertices, ball.faces, process=False)


def test_only_narrow_holes_are_closed():
    mesh = _holed()
    assert len(open_loops(np.asarray(mesh.faces))) == 2
    filled, filling = fill_holes(mesh, 0.2)
    assert (filling.found, filling.closed, filling.too_wide, filling.at_boundary) == (2, 1, 1, 0)
    assert len(filled.faces) == len(mesh.faces) + filling.faces_added
    assert len(open_loops(np.asarray(filled.faces))) == 1
    closed, filling = fill_holes(mesh, 1.0)
    assert filling.closed == 2 and closed.is_watertight and closed.is_winding_consistent
    assert closed.volume > 0


def test_the_end_of_the_region_is_no_hole():
    mesh = _holed()
    mesh.apply_scale(2.0)
    _, filling = fill_holes(mesh, 2.0)
    assert filling.at_boundary == 2 and filling.closed == 0


def test_simplified_meshes_keep_their_shape():
    ball = trimesh.creation.icosphere(subdivisions=4)
    small = simplify(ball, 500)
    assert 400 < len(small.faces) <= 520
    assert np.linalg.norm(small.vertices, axis=1).min() > 0.97
    assert small.volume > 0, "still outward"
    assert simplify(ball, 10**6) is ball
