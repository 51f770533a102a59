import mcubes
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from pipeline.errors import InputError
from pipeline.surface.extract import Lattice, extract_mesh


def sphere(radius=0.6, centre=(0.05, -0.1, 0.02)):
    return lambda x: (x - x.new_tensor(centre)).norm(dim=1) - radius


def torus_and_box(x):
    ring = torch.stack([x[:, :2].norm(dim=1) - 0.5, x[:, 2]], dim=1).norm(dim=1) - 0.17
    q = (x - x.new_tensor([0.1, 0.05, 0.55])).abs() - x.new_tensor([0.2, 0.15, 0.1])
    box = q.clamp(min=0).norm(dim=1) + q.max(dim=1).values.clamp(max=0)
    return torch.minimum(ring, box)


def steep(x):
    """Far from a distance: its slope is up to 6."""
    return 6 * (x.norm(dim=1) - 0.513 - 0.08 * torch.sin(9 * x[:, 0]) * torch.cos(8 * x[:, 1]))


def dense_mesh(sdf, resolution):
    lattice = Lattice(resolution)
    n = lattice.points_per_axis
    points = torch.as_tensor(lattice.positions(np.arange(n**3)), dtype=torch.float32)
    values = sdf(points).numpy().reshape(n, n, n)
    vertices, faces = mcubes.marching_cubes(values, 0.0)
    return vertices * lattice.cell - 1.0, faces


@pytest.mark.parametrize("sdf", [sphere(), torus_and_box, steep])
def test_same_mesh_as_the_dense_grid(sdf):
    resolution = 96
    found = extract_mesh(sdf, resolution)
    vertices, faces = dense_mesh(sdf, resolution)
    assert len(found.mesh.faces) == len(faces)
    assert len(found.mesh.vertices) == len(vertices)
    distance, partner = cKDTree(vertices).query(found.mesh.vertices)
    assert distance.max() < 1e-6
    assert len(np.unique(partner)) == len(vertices)


def test_blocks_are_joined_without_seams():
    mesh = extract_mesh(torus_and_box, 128).mesh
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.body_count == 2


@pytest.mark.parametrize(
    ("resolution", "times"), [(256, 8), pytest.param(512, 10, marks=pytest.mark.slow)]
)
def test_far_fewer_evaluations_than_the_dense_grid(resolution, times):
    found = extract_mesh(sphere(), resolution)
    assert found.dense_evaluations == (resolution + 1) ** 3
    assert found.evaluations * times < found.dense_evaluations


def test_normals_point_outward_and_the_volume_is_right():
    mesh = extract_mesh(sphere(radius=0.6), 128).mesh
    assert mesh.volume == pytest.approx(4 / 3 * np.pi * 0.6**3, rel=2e-3)


def test_surface_is_followed_where_the_field_is_far_too_steep():
    """The distance bound alone would miss most of it with this slope."""
    found = extract_mesh(lambda x: 40 * (x.norm(dim=1) - 0.5), 128)
    _, faces = dense_mesh(lambda x: 40 * (x.norm(dim=1) - 0.5), 128)
    assert len(found.mesh.faces) == len(faces)


def test_surface_through_lattice_points_gives_a_closed_mesh():
    """A box whose faces lie exactly on lattice planes: the values there are exactly zero."""
    box = lambda x: x.abs().max(dim=1).values - 0.5  # noqa: E731
    mesh = extract_mesh(box, 64).mesh
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(1.0, rel=1e-2)  # its edges are bevelled by half a cell


def test_nothing_is_opened_outside_the_unit_sphere():
    """A plane through the cube: pieces in the cube's corners are left out."""
    mesh = extract_mesh(lambda x: x[:, 2] - 0.01, 128).mesh
    block_diagonal = 8 * 2 / 128 * np.sqrt(3)
    assert np.linalg.norm(mesh.vertices, axis=1).max() <= 1 + block_diagonal


def test_a_field_without_surface_gives_an_empty_mesh():
    assert len(extract_mesh(lambda x: x.norm(dim=1) + 0.3, 64).mesh.faces) == 0


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="multiple of 8"):
        extract_mesh(sphere(), 100)
    with pytest.raises(InputError, match="not finite"):
        extract_mesh(lambda x: x[:, 0] * float("nan"), 64)


def test_chunking_does_not_change_the_mesh():
    one = extract_mesh(torus_and_box, 64, chunk_points=1 << 20).mesh
    many = extract_mesh(torus_and_box, 64, chunk_points=777).mesh
    assert np.array_equal(one.faces, many.faces)
    assert np.allclose(one.vertices, many.vertices, atol=1e-6)
