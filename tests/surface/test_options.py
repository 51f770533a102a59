"""Every option of the mesh stage changes what is built: none is accepted for nothing."""

import numpy as np
import pytest
import torch

from pipeline.progress import NullProgress
from pipeline.surface.build import Surface, build_surface
from pipeline.surface.config import MeshConfig
from tests.surface.analytic_scene import balls, make_views, ring

BESIDE = torch.tensor([0.0, -0.75, 0.35])
"""Middle of a third ball, which the masks do not show; its area is 1.6% of the largest one's."""

SHOWN_ELSEWHERE = {"threshold", "obj", "remove_backdrop", "device", "chunk_points"}
"""By tests of the stage, the extraction, and backdrops; the last two do not change the surface."""

CASES = {
    "resolution": ({}, {"resolution": 64}),
    "lipschitz": (
        {"resolution": 96, "min_component_fraction": 0, "use_masks": False},
        {"lipschitz": 20},
    ),
    "views_needed": ({}, {"views_needed": 0}),
    "min_component_fraction": ({"use_masks": False}, {"min_component_fraction": 0.01}),
    "min_component_points": ({"use_masks": False}, {"min_component_points": 10}),
    "use_masks": ({"min_component_fraction": 0}, {"use_masks": False}),
    "mask_margin": ({"min_component_fraction": 0}, {"mask_margin": 0.2}),
    "blended_views": ({}, {"blended_views": 1}),
    "simplify": ({}, {"simplify": 500}),
    "fill_holes": ({}, {"fill_holes": 1.0}),
    "texture": ({}, {"texture": True}),
    "texture_size": ({"texture": True}, {"texture_size": 100}),
}


def test_no_option_is_left_out():
    assert set(MeshConfig.model_fields) == set(CASES) | SHOWN_ELSEWHERE


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    return make_views(tmp_path_factory.mktemp("scene"), with_masks=True, poses=ring(6))


@pytest.mark.parametrize("option", CASES)
def test_option_changes_the_surface(views, option):
    before, after = CASES[option]
    # where `lipschitz` is asked about, the third ball is so steep that it hides between blocks
    steepness = 20.0 if option == "lipschitz" else 1.0
    base = {"resolution": 48, **before}
    one, other = (built(views, steepness, options) for options in (base, {**base, **after}))
    assert signature(one) != signature(other)


def built(views, steepness, options) -> Surface:
    def crowded(x):
        return torch.minimum(balls(x), steepness * ((x - BESIDE).norm(dim=1) - 0.05))

    rng = np.random.default_rng(0)
    directions = rng.normal(size=(20, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    points = BESIDE.numpy() + 0.05 * directions
    config = MeshConfig().model_copy(update=options)  # some are smaller than any real one
    return build_surface(crowded, views, np.eye(4), points, config, "cpu", NullProgress())


def signature(surface: Surface) -> tuple:
    picture = None if surface.textured is None else surface.textured.picture.shape
    colours = surface.colours.rgb.astype(np.int64).sum()
    return len(surface.mesh.faces), round(float(surface.mesh.area), 6), int(colours), picture
