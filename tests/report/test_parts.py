"""Words, charts, contact sheets and the studio, each for itself."""

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipeline.porf.first_cameras import _CALIBRATIONS
from pipeline.report.charts import bars_per_view, match_graph, match_matrix, training_charts
from pipeline.report.data import ReportData
from pipeline.report.page import camera_text
from pipeline.report.pictures import Tile, contact_sheet, on_background, thumbnail, webp_uri
from pipeline.report.shade import Studio
from pipeline.report.summary import headline
from pipeline.report.words import duration, length, memory, number, percent, plain_name, told, unit
from pipeline.surface.decimate import DisplayMesh


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0731234, "0.0731"),
        (12.345, "12.3"),
        (123.4, "123"),
        (12345.6, "12\u202f346"),
        (1234567, "1\u202f234\u202f567"),
        (0.0, "0"),
        (1e-9, "1.00e-09"),
        (float("nan"), "–"),
        (None, "–"),
        (True, "yes"),
        ("word", "word"),
        ([1, 2.5], "1, 2.50"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_words():
    times = [duration(seconds) for seconds in (4.21, 42, 185, 600, 7800)]
    assert [t.replace("\u00a0", " ") for t in times] == [
        "4.2 s", "42 s", "3 min 5 s", "10 min", "2 h 10 min",
    ]  # fmt: skip
    assert plain_name("psnr_heldout_mean") == "PSNR held-out mean"
    assert told("heldout_error_px", 0.3) == "held-out error 0.300 px"
    assert told("faces", 1200) == "faces 1\u202f200"
    assert length(3.74e-5, "m") == "0.0374\u00a0mm" and length(0.122, "m") == "0.122\u00a0m"
    assert [memory(mb) for mb in (0, 350, 2100)] == ["–", "350 MB", "2.1 GB"]
    assert [percent(f) for f in (0, 1e-4, 0.003, 0.12)] == ["0%", "<0.1%", "0.3%", "12%"]
    assert [unit(u) for u in ("deg", "unknown", None, "mm")] == ["°", "scene units", "", "mm"]


@pytest.mark.parametrize(
    ("accepted", "heldout", "candidates", "said"),
    [
        ("joint", 400, 2, "agreed best with the cameras refined jointly with the surface"),
        ("adjusted", 400, 2, "agreed best with the cameras adjusted to the other matches"),
        ("calibrated_radial", 400, 4, "principal point and radial distortion"),
        ("input", 400, 2, "cameras that training was given, so these were kept"),
        ("input", 400, 1, "no others were tried"),
        ("joint", 0, 2, "No match was held out to judge cameras"),
    ],
)
def test_which_cameras_were_taken_and_why(accepted, heldout, candidates, said):
    figures = {"accepted_cameras": accepted, "heldout_matches": heldout}
    text = camera_text({"figures": figures, "candidates": [{}] * candidates})
    assert said in text


def test_every_candidate_of_training_has_its_words():
    for name in ("input", "adjusted", *_CALIBRATIONS, "epipolar", "joint"):
        assert camera_text({"figures": {"accepted_cameras": name}}), name
    assert camera_text({}) is None


def test_masks_speak_for_the_surface_where_there_is_no_truth():
    rows = [("silhouette_iou", 97.31), ("silhouette_iou_worst", 94.2), ("f_score", None)]
    metrics = {"metrics": [{"name": name, "value": value} for name, value in rows]}
    (figure,) = headline(ReportData("t", metrics=metrics))
    assert (figure.label, figure.value, figure.unit) == ("Silhouettes", "97.3", "%")
    assert "94.2% at worst" in figure.note
    metrics["metrics"].append({"name": "chamfer_of_radius", "value": 0.4})
    (figure,) = headline(ReportData("t", metrics=metrics))
    assert figure.label.startswith("Surface error")


def test_charts_follow_the_page_and_stand_alone():
    history = {
        "step": np.array([1.0, 2, 3, 4]),
        "loss": np.array([100.0, 10, 1, 0.1]),
        "psnr_db": np.array([np.nan, 20, 21, 22]),
        "flat": np.ones(4),
    }
    charts = training_charts(history)
    assert [chart.name for chart in charts] == ["training_loss", "training_psnr_db"]
    for chart in charts:
        assert chart.svg.startswith("<svg")
        assert "currentColor" in chart.svg
        assert "#010203" not in chart.svg
        assert "mathdefault" not in chart.svg
        assert chart.png.startswith(b"\x89PNG")


def test_one_row_of_history_is_no_curve():
    assert training_charts({"step": np.array([1.0]), "loss": np.array([1.0])}) == []
    assert training_charts({}) == []


def test_match_matrix_takes_unmatched_pairs():
    counts = np.array([[0, 5, 0], [5, 0, 300], [0, 300, 0]])
    assert match_matrix(counts).png.startswith(b"\x89PNG")
    assert bars_per_view("x", "a $b_c$ title", np.array([1.0, 2])).svg


def test_a_match_graph_of_many_photos_stays_small():
    angles = np.linspace(0, 6, 150)
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    counts = np.random.default_rng(0).integers(1, 900, size=(150, 150))
    chart = match_graph(places, counts)
    assert "the 1500 strongest of 11175 pairs" in chart.title
    assert len(chart.svg) < 1_000_000


def test_contact_sheet_has_room_for_all():
    red = Image.new("RGB", (60, 30), (255, 0, 0))
    sheet = contact_sheet(
        [Tile(red, f"name {i}") for i in range(5)] + [Tile(None, "lost")], 4, (100, 80)
    )
    assert sheet.width > 400
    pixels = np.asarray(sheet)
    assert ((pixels == [255, 0, 0]).all(axis=2)).sum() == 5 * 100 * 50


def test_thumbnails_are_small_and_keep_transparency():
    wide = Image.new("RGBA", (1000, 500), (0, 0, 255, 0))
    small = thumbnail(wide, 100)
    assert small.size == (100, 50)
    assert on_background(small).getpixel((5, 5)) == (255, 255, 255)
    assert webp_uri(small).startswith("data:image/webp;base64,")


@pytest.fixture(scope="module")
def studio():
    ball = trimesh.creation.icosphere(subdivisions=4)
    ball.vertices[:, 0] += 0.3
    rgb = np.where(ball.vertices[:, 2:] > 0, [[250, 20, 20]], [[20, 20, 250]]).astype(np.uint8)
    mesh = DisplayMesh(ball.vertices, ball.vertex_normals, ball.faces, rgb)
    return Studio(mesh, np.array([0.0, 0, 1]))


def test_pictures_are_upright_and_centred(studio):
    picture = np.asarray(studio.shoot(30, 0, size=(200, 160)).colour).astype(float)
    cover = picture[..., 3] > 128
    rows, columns = np.nonzero(cover)
    assert columns.mean() == pytest.approx(99.5, abs=1.0)
    assert rows.mean() == pytest.approx(79.5, abs=1.0)
    assert np.pi / 4 * 0.9 < cover.sum() / 160**2 < np.pi / 4 * 1.02, "fills the frame"
    upper, lower = picture[40, 100], picture[120, 100]
    assert upper[0] > 2 * upper[2], "the red half is on top"
    assert lower[2] > 2 * lower[0]


def test_a_flat_thing_fills_the_pictures_from_all_sides():
    disc = trimesh.creation.cylinder(radius=1.0, height=0.1)
    grey = np.full((len(disc.vertices), 3), 128, np.uint8)
    flat = Studio(
        DisplayMesh(disc.vertices, disc.vertex_normals, disc.faces, grey), np.array([0.0, 0, 1])
    )
    zoom = flat.fitting_zoom([0.0, 45.0, 90.0])
    cover = np.asarray(flat.shoot(45.0, zoom=zoom).colour)[..., 3] > 128
    assert 0.85 * cover.shape[1] < np.ptp(np.flatnonzero(cover.any(axis=0))) < cover.shape[1] - 8


def test_light_comes_from_above(studio):
    clay = np.asarray(studio.shoot(0, 0, size=(200, 160)).clay).astype(float)[..., 0]
    assert clay[40, 100] > clay[130, 100] + 20


def test_azimuth_of_a_direction(studio):
    for azimuth in (0.0, 75.0, -130.0):
        assert studio.azimuth_of(studio.direction(azimuth, 20)) == pytest.approx(azimuth)
