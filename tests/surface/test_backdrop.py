"""Black before black: what no photo tells from the backdrop goes, what one does stays."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.progress import NullProgress
from pipeline.surface.backdrop import like_backdrop, remove_backdrop
from pipeline.surface.build import build_surface
from pipeline.surface.clean import Cleaning, clip_to_sphere, count_seeing_views, remove_unseen
from pipeline.surface.config import MeshConfig
from pipeline.surface.extract import extract_mesh
from pipeline.surface.views import Views
from tests.surface.analytic_scene import CENTRES, RADII, balls, make_views, ring

PHANTOM = torch.tensor([0.0, 0.0, 0.85])
"""Middle of a ball that no photo shows, cut by the region's boundary. The photos have a backdrop of
30 grey levels everywhere."""

UP = np.array([0.0, 0.0, 1.0])


def dark(origins: NDArray, directions: NDArray) -> NDArray:
    return np.full((len(origins), 3), 20.0)


def bright(origins: NDArray, directions: NDArray) -> NDArray:
    return np.full((len(origins), 3), 200.0)


def haunted(x: torch.Tensor) -> torch.Tensor:
    return torch.minimum(balls(x), (x - PHANTOM).norm(dim=1) - 0.2)


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Views:
    return make_views(tmp_path_factory.mktemp("scene"), poses=ring(12, height=0.5, radius=3.0))


def _cleaned(views: Views, backdrop: object, sdf: object = haunted) -> Cleaning:
    cleaning = Cleaning(extract_mesh(sdf, 96).mesh)  # type: ignore[arg-type]
    clip_to_sphere(cleaning)
    remove_unseen(cleaning, count_seeing_views(cleaning.mesh, views, 0.02), 2, UP)
    remove_backdrop(cleaning, views, backdrop, 0.02, NullProgress())  # type: ignore[arg-type]
    return cleaning


def test_what_is_as_dark_as_the_backdrop_goes(views: Views) -> None:
    cleaning = _cleaned(views, dark)
    assert cleaning.removals[-1].step == "backdrop"
    assert cleaning.removals[-1].faces > 100
    # both balls are whole, but for what nobody sees
    distance = np.linalg.norm(cleaning.mesh.vertices[:, None] - CENTRES.numpy(), axis=2)
    assert (np.abs(distance - RADII.numpy()).min(axis=1) < 0.01).mean() > 0.98
    without = _cleaned(views, dark, balls).mesh
    assert cleaning.mesh.area == pytest.approx(without.area, rel=0.03)


def test_before_a_bright_backdrop_a_dark_thing_is_seen(views: Views) -> None:
    assert _cleaned(views, bright).removals[-1].faces == 0


def test_what_does_not_reach_the_boundary_stays(views: Views) -> None:
    """A hollow may be as dark as the backdrop: only what hangs on the boundary is doubted."""

    def floating(x: torch.Tensor) -> torch.Tensor:
        return torch.minimum(balls(x), (x - 0.7 * PHANTOM).norm(dim=1) - 0.1)

    assert _cleaned(views, dark, floating).removals[-1].faces == 0


def test_one_photo_that_tells_them_apart_is_enough(views: Views) -> None:
    mesh = _cleaned(views, bright).mesh

    def seen_from_one_side(origins: NDArray, directions: NDArray) -> NDArray:
        apart = np.allclose(origins[0], views.c2w[3][:3, 3]) if len(origins) else False
        return np.full((len(origins), 3), 200.0 if apart else 20.0)

    alike, told = (
        like_backdrop(mesh, views, backdrop, 0.02, NullProgress())
        for backdrop in (dark, seen_from_one_side)
    )
    assert alike.sum() > told.sum() > 0
    assert not (told & ~alike).any()


def test_where_nothing_is_left_the_option_is_named(views: Views, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        _cleaned(views, dark, lambda x: (x - PHANTOM).norm(dim=1) - 0.2)
    assert "mesh.remove_backdrop=false" in (error.value.hint or "")


def test_the_option_keeps_it(views: Views) -> None:
    faces = {}
    for remove in (True, False):
        config = MeshConfig(resolution=64, remove_backdrop=remove, min_component_fraction=0)
        points, progress = np.zeros((0, 3)), NullProgress()
        surface = build_surface(
            haunted, views, np.eye(4), points, config, "cpu", progress, backdrop=dark
        )
        faces[remove] = len(surface.mesh.faces)
    assert faces[True] < 0.9 * faces[False]
