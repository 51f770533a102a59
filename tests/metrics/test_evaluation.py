import numpy as np
import pytest
from PIL import Image

from pipeline.formats.idr import IdrCameras
from pipeline.geometry.cameras import project
from pipeline.metrics.config import EvaluateConfig
from pipeline.metrics.evaluation import frames_of, truth_unit
from pipeline.metrics.heldout import EpipolarSummary
from pipeline.metrics.renders import (
    error_picture,
    normal_picture,
    render_view,
    scaled_intrinsics,
)
from pipeline.metrics.table import Metric, epipolar_metrics
from pipeline.metrics.truth import TrueCameras

K = np.array([[700.0, 0, 330.0], [0, 700, 231.0], [0, 0, 1]])


def test_scaled_intrinsics_keep_pixel_corners_on_pixel_corners():
    points = np.random.default_rng(0).uniform(-1, 1, (50, 3)) + np.array([0, 0, 5])
    full, _ = project(K, np.eye(4), points)
    small, _ = project(scaled_intrinsics(K, 0.25, 0.5), np.eye(4), points)
    assert np.allclose((small + 0.5), (full + 0.5) * [0.25, 0.5])


class _FlatModel:
    """Renders one colour, and normals that look at the camera."""

    def __init__(self) -> None:
        self.K, self.c2w = K[None], np.eye(4)[None]
        self.asked: tuple = ()

    def render(self, K, c2w_normalised, width, height):
        self.asked = (K, width, height)
        ones = np.ones((height, width))
        normal = np.tile(np.array([0.0, 0, -1]), (height, width, 1))
        rgb = np.full((height, width, 3), 100, dtype=np.uint8)
        return {"rgb": rgb, "normal": normal, "opacity": ones}


def test_a_view_is_rendered_small_and_compared(tmp_path):
    photo = np.full((480, 640, 3), 110, dtype=np.uint8)
    photo[:, :320] = 100
    Image.fromarray(photo).save(tmp_path / "photo.png")
    mask = np.zeros((480, 640), dtype=np.uint8)
    mask[:, :320] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    model = _FlatModel()
    whole = render_view(model, 0, tmp_path / "photo.png", None, 160, tmp_path / "whole")
    assert whole.size_px == (160, 120)
    assert model.asked[1:] == (160, 120)
    assert model.asked[0][0, 0] == pytest.approx(175)
    assert whole.psnr_db == pytest.approx(20 * np.log10(255 / 10) + 10 * np.log10(2))
    inside = render_view(
        model, 0, tmp_path / "photo.png", tmp_path / "mask.png", 160, tmp_path / "inside"
    )
    assert inside.psnr_db == float("inf")
    kept = np.asarray(Image.open(tmp_path / "inside/000_render.png"))
    assert (kept[:, 100:] == 128).all() and (kept[:, :60] == 100).all()


def test_pictures_of_normals_and_errors():
    normal = np.zeros((1, 3, 3))
    normal[0, 0], normal[0, 1] = [0, 0, -2], [1, 0, 0]
    picture = normal_picture(normal, np.array([[1.0, 1.0, 0.0]]), np.eye(4))
    assert picture[0].tolist() == [[128, 128, 255], [255, 128, 128], [255, 255, 255]]
    dark, bright = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 200, np.uint8)
    assert error_picture(dark, dark).sum() < error_picture(dark, bright).sum()


def test_frames_follow_the_truth_where_photos_were_shrunk():
    cameras = IdrCameras(K[None], np.eye(4)[None], np.eye(4))
    assert frames_of(cameras, np.array([[640, 480]])).tolist() == [[640, 480]]
    assert frames_of(cameras, np.array([[320, 240]])).tolist() == [[661, 463]]


def test_unit_of_the_truth():
    cameras = IdrCameras(K[None], np.eye(4)[None], np.eye(4))
    named, unnamed = TrueCameras(cameras, None, "mm"), TrueCameras(cameras, None, "unknown")
    assert truth_unit(named, EvaluateConfig(unit="m")) == "mm"
    assert truth_unit(unnamed, EvaluateConfig(unit="m")) == "m"
    assert truth_unit(unnamed, EvaluateConfig()) == "units of the truth"


def test_values_that_cannot_be_told_are_null_in_json():
    assert Metric("a", float("nan"), "px", "", "").as_json()["value"] is None
    rows = epipolar_metrics(EpipolarSummary(10, 30.0, float("nan"), 0.0), "sfm")
    assert rows[1].as_json()["value"] is None
    assert epipolar_metrics(None, "sfm") == []
