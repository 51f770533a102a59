"""Every option of the evaluation changes what is measured or written."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipeline.geometry.cameras import look_at
from pipeline.geometry.similarity import Similarity
from pipeline.metrics.alignment import NOT_ALIGNED, Alignment
from pipeline.metrics.config import EvaluateConfig
from pipeline.metrics.evaluation import (
    Findings,
    measure_renders,
    surface_alignment,
    surface_protocol,
    truth_unit,
)
from pipeline.metrics.surface import Viewers, compare_surfaces
from pipeline.progress import NullProgress

BASE = {"rays_per_view": 2000, "spacing": 0.03}
OF_SURFACES = {
    "rays_per_view": 1000,
    "spacing": 0.05,
    "cap": 0.02,
    "threshold": 0.03,
    "margin_px": 20.0,
}
OF_RENDERS = {"views": 2, "max_side_px": 40}
SHOWN_ELSEWHERE = {"alignment", "unit", "device"}
"""The first two below; the last one does not change a measure."""

BALL = trimesh.creation.icosphere(subdivisions=3)


def test_no_option_is_left_out():
    assert set(EvaluateConfig.model_fields) == {*OF_SURFACES, *OF_RENDERS, *SHOWN_ELSEWHERE}


@pytest.fixture(scope="module")
def bumpy():
    mesh = BALL.copy()
    mesh.vertices *= 1 + 0.04 * np.sin(7 * mesh.vertices[:, :1])
    return mesh


@pytest.fixture(scope="module")
def viewers():
    centres = [[3.0, 1.0, 1.0], [-3.0, 2.0, 1.0], [0.5, -3.0, 2.0], [2.0, 3.0, -1.0]]
    c2w = np.stack([look_at(np.array(c), np.zeros(3), np.array([0, 0, 1.0])) for c in centres])
    K = np.array([[150.0, 0, 79.5], [0, 150, 79.5], [0, 0, 1]])
    return Viewers(np.tile(K, (4, 1, 1)), c2w, np.tile([160, 160], (4, 1)))


@pytest.mark.parametrize("option", OF_SURFACES)
def test_surfaces(bumpy, viewers, option):
    def measured(**options):
        protocol = surface_protocol(EvaluateConfig(**{**BASE, **options}))
        errors = compare_surfaces(bumpy, BALL, Similarity.identity(), viewers, protocol)
        return errors.chamfer, errors.fscore, len(errors.accuracy)

    assert measured() != measured(**{option: OF_SURFACES[option]})


def test_alignment(bumpy):
    shifted = {
        name: Alignment(name, Similarity(1.0, np.eye(3), np.array([shift, 0, 0])))
        for name, shift in (("centres", 0.01), ("poses", 0.02))
    }
    known = {"none": NOT_ALIGNED, **shifted}
    found = {
        name: surface_alignment(bumpy, BALL, known, EvaluateConfig(alignment=name))
        for name in ("none", "centres", "poses", "icp")
    }
    assert [alignment.method for alignment in found.values()] == list(found)
    moved = {round(float(a.similarity.translation[0]), 5) for a in found.values()}
    assert len(moved) == 4


def test_unit():
    assert truth_unit(None, EvaluateConfig(unit="cm")) == "cm"
    assert truth_unit(None, EvaluateConfig()) != "cm"


class _Grey:
    """Renders grey whatever it is asked for."""

    K = np.tile(np.array([[60.0, 0, 39.5], [0, 60, 29.5], [0, 0, 1]]), (5, 1, 1))
    c2w = np.tile(np.eye(4), (5, 1, 1))

    def render(self, K, c2w_normalised, width, height):
        shape = (height, width)
        rgb, normal = np.full((*shape, 3), 90, np.uint8), np.full((*shape, 3), 0.5)
        return {"rgb": rgb, "normal": normal, "opacity": np.ones(shape)}


@pytest.mark.parametrize("option", OF_RENDERS)
def test_renders(tmp_path, option):
    model = _Grey()
    model.c2w = model.c2w.copy()
    model.c2w[:, 0, 3] = range(5)
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    photos = [tmp_path / f"{i}.png" for i in range(5)]
    for photo in photos:
        Image.fromarray(noise).save(photo)

    def written(folder, **options):
        config, out = EvaluateConfig(**options), tmp_path / folder
        measure_renders(Findings(), model, photos, None, config, out, NullProgress())
        return [(path.name, Image.open(path).size) for path in sorted(out.iterdir())]

    assert written("one") != written("other", **{option: OF_RENDERS[option]})
