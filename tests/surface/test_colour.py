import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.surface.colour import colour_vertices, sample
from pipeline.surface.extract import extract_mesh
from pipeline.surface.views import Views
from tests.surface.analytic_scene import CENTRES, balls, make_views, paint, ring


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return make_views(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def coloured(views):
    extraction = extract_mesh(balls, 96)
    return extraction.mesh, colour_vertices(extraction.mesh, views, 1.5 * extraction.cell)


def test_colours_are_those_of_the_surface(coloured):
    mesh, colours = coloured
    well_seen = colours.seen_by >= 3
    error = np.abs(colours.rgb[well_seen] - paint(mesh.vertices[well_seen])).mean(axis=1)
    assert well_seen.mean() > 0.6
    assert np.median(error) < 2.0
    assert np.percentile(error, 95) < 10.0  # edges of the ball in front mix


def test_the_ball_in_front_does_not_colour_the_one_behind(coloured):
    mesh, colours = coloured
    on_large = np.linalg.norm(mesh.vertices - CENTRES[0].numpy(), axis=1) < 0.42
    seen = on_large & (colours.seen_by > 0)
    red = (colours.rgb[:, 0] > 200) & (colours.rgb[:, 1] < 40)
    truly_red = (paint(mesh.vertices)[:, 0] > 200) & (paint(mesh.vertices)[:, 1] < 40)
    assert (red & seen & ~truly_red).sum() < 0.002 * seen.sum()


def test_unseen_vertices_borrow_their_neighbours_colour(coloured):
    mesh, colours = coloured
    unseen = np.flatnonzero(colours.seen_by == 0)
    assert len(unseen)
    seen = np.flatnonzero(colours.seen_by > 0)
    for vertex in unseen[:: len(unseen) // 20]:
        distance = np.linalg.norm(mesh.vertices[seen] - mesh.vertices[vertex], axis=1)
        assert np.array_equal(colours.rgb[vertex], colours.rgb[seen[distance.argmin()]])


def test_cameras_that_are_off_give_worse_colours(views, coloured):
    """Colours from cameras shifted by two pixels are clearly worse: the projection is used."""
    mesh, colours = coloured
    shifted_K = views.K.copy()
    shifted_K[:, 0, 2] += 2.0
    shifted = Views(shifted_K, views.c2w, views.image_paths, [], views.width, views.height)
    worse = colour_vertices(mesh, shifted, 0.03)
    well_seen = (colours.seen_by >= 3) & (worse.seen_by >= 3)
    truth = paint(mesh.vertices[well_seen])
    assert (
        np.abs(worse.rgb[well_seen] - truth).mean()
        > 1.5 * np.abs(colours.rgb[well_seen] - truth).mean()
    )


def test_sampling_puts_pixel_centres_at_integers():
    image = np.zeros((4, 5, 3), dtype=np.uint8)
    image[2, 3] = 200
    assert np.allclose(
        sample(image, np.array([[3.0, 2.0], [2.5, 2.0], [3.0, 1.75]]))[:, 0], [200, 100, 150]
    )


def test_no_photo_sees_the_surface(tmp_path):
    away = ring(4)
    away[:, :3, 3] *= -1  # behind the scene's back, looking away from it
    away[:, :3, :3] = ring(4)[:, :3, :3]
    away[:, :3, 3] = ring(4)[:, :3, 3] + 5 * ring(4)[:, :3, 2]
    mesh = extract_mesh(balls, 32).mesh
    with pytest.raises(InputError, match="no photo sees"):
        colour_vertices(mesh, make_views(tmp_path, poses=away), 0.05)
