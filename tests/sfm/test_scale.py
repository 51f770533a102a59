"""What tells the size of things: GPS, markers, known distances; and what is refused."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.geometry.cameras import look_at
from pipeline.geometry.similarity import Similarity
from pipeline.imaging.records import PhotoRecord, load_ingest, save_ingest
from pipeline.progress import NullProgress
from pipeline.sfm.config import ScaleConfig
from pipeline.sfm.gps import GpsPhoto, gps_frame
from pipeline.sfm.markers import find_markers, marker_frame
from pipeline.sfm.scale import distance_frame
from pipeline.sfm.views import RegisteredView
from tests.stages.photo_run import box_run, run_stage

ORIGIN = (46.84, -91.99, 198.0)


def _ring(count: int = 20, radius_m: float = 30.0) -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    height = 8 + 4 * np.sin(3 * angle)
    return np.stack([radius_m * np.cos(angle), radius_m * np.sin(angle), height], axis=1)


def _photos(
    enu_m: NDArray, metres_from_model: Similarity, noise_m: float, seed: int = 0
) -> list[GpsPhoto]:
    """Photos whose model positions are exact and whose GPS is noisy."""
    noisy = enu_m + np.random.default_rng(seed).normal(0, noise_m, enu_m.shape)
    positions = pycolmap.GPSTransform().enu_to_ellipsoid(noisy, *ORIGIN)
    centres = metres_from_model.inverse().apply_points(enu_m)
    return [
        GpsPhoto(f"{i}.jpg", c, (float(p[0]), float(p[1]), float(p[2])))
        for i, (c, p) in enumerate(zip(centres, positions, strict=True))
    ]


TURN = Rotation.from_rotvec([0.4, 1.1, -0.7]).as_matrix()
MODEL = Similarity(3.7, TURN, np.array([5.0, -3.0, 2.0]))


def test_gps_gives_metres_east_north_up() -> None:
    enu = _ring()
    photos = _photos(enu, MODEL, noise_m=0.3)
    frame = gps_frame(photos, 5, seed=0)
    assert (frame.unit, frame.up) == ("m", (0.0, 0.0, 1.0))
    assert frame.from_sfm.scale == pytest.approx(3.7, rel=0.01)
    placed = frame.from_sfm.apply_points(np.stack([p.centre for p in photos]))
    # the origin is the median position: differences are what must agree, axes included
    np.testing.assert_allclose(placed - placed[0], enu - enu[0], atol=0.8)
    assert frame.figures["error_m"] == pytest.approx(0.3, rel=0.4)


def test_photos_with_wrong_gps_are_named() -> None:
    photos = _photos(_ring(), MODEL, noise_m=0.2)
    lat, lon, alt = photos[7].position
    photos[7] = GpsPhoto("7.jpg", photos[7].centre, (lat + 0.01, lon, alt))
    frame = gps_frame(photos, 5, seed=0)
    assert frame.figures["outliers"] == ["7.jpg"]
    assert frame.from_sfm.scale == pytest.approx(3.7, rel=0.01)


def test_gps_that_cannot_tell_the_scale() -> None:
    enu = _ring()
    with pytest.raises(InputError, match="expected 5"):
        gps_frame(_photos(enu[:4], MODEL, 0.1), 5, 0)
    same = [GpsPhoto(p.name, p.centre, ORIGIN) for p in _photos(enu, MODEL, 0.1)]
    with pytest.raises(InputError, match="the same GPS position"):
        gps_frame(same, 5, 0)
    with pytest.raises(InputError, match="GPS"):  # a table top, a receiver good to metres
        gps_frame(_photos(_ring(radius_m=1.0) / [1, 1, 20], MODEL, 3.0), 5, 0)
    shuffled = np.random.default_rng(3).permutation(20)
    wrong = _photos(enu, MODEL, 0.1)
    wrong = [
        GpsPhoto(p.name, wrong[j].centre, p.position) for p, j in zip(wrong, shuffled, strict=True)
    ]
    with pytest.raises(InputError, match="GPS"):
        gps_frame(wrong, 5, 0)


def test_a_line_of_cameras_gives_the_scale_only() -> None:
    line = np.linspace(0, 60, 20)[:, None] * np.array([0.6, 0.8, 0.0])
    frame = gps_frame(_photos(line, MODEL, 0.1), 5, 0)
    assert frame.from_sfm.scale == pytest.approx(3.7, rel=0.01)
    np.testing.assert_array_equal(frame.from_sfm.rotation, np.eye(3))
    assert frame.up is None


def _view(index: int, c2w: NDArray, camera: pycolmap.Camera, file: str) -> RegisteredView:
    photo = PhotoRecord(name=f"{index}.jpg", file=file, width=800, height=600, used=True)
    return RegisteredView(index, photo, index + 1, camera, c2w)


SIDE, APART = 0.4, 1.0
"""Of the markers in model units."""


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[RegisteredView]]:
    """Three photos of two markers on a plane, through a lens with distortion."""
    folder = tmp_path_factory.mktemp("markers")
    camera = pycolmap.Camera(
        model="SIMPLE_RADIAL", width=800, height=600, params=[900.0, 410.0, 295.0, 0.03]
    )
    dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_50)
    sheets = [cv2.aruco.generateImageMarker(dictionary, number, 280) for number in (3, 7)]
    views = []
    for i, x in enumerate((-1.2, 0.1, 1.3)):
        c2w = look_at(np.array([x, -0.9, -2.6]), np.zeros(3), np.array([0.0, -1, 0]))
        Image.fromarray(_render(sheets, camera, c2w)).save(folder / f"{i}.png")
        views.append(_view(i, c2w, camera, f"{i}.png"))
    return folder, views


def _render(sheets: list[NDArray], camera: pycolmap.Camera, c2w: NDArray) -> NDArray[np.uint8]:
    """Two sheets on the plane z = 0, two by two samples a pixel."""
    x, y = np.meshgrid((np.arange(1600) + 0.5) / 2, (np.arange(1200) + 0.5) / 2)
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    ideal = np.asarray(camera.cam_from_img(pixels))
    rays = np.concatenate([ideal, np.ones((len(ideal), 1))], axis=1) @ c2w[:3, :3].T
    hit = c2w[:3, 3] - rays * (c2w[2, 3] / rays[:, 2:])
    image = np.full(len(hit), 235.0)
    for sheet, centre in zip(sheets, (-APART / 2, APART / 2), strict=True):
        u, v = (hit[:, 0] - centre) / SIDE + 0.5, hit[:, 1] / SIDE + 0.5
        on = (u >= 0) & (u < 1) & (v >= 0) & (v < 1)
        image[on] = sheet[(v[on] * 280).astype(int), (u[on] * 280).astype(int)]
    fine = image.reshape(1200, 1600).astype(np.uint8)
    return cv2.resize(fine, (800, 600), interpolation=cv2.INTER_AREA)


def test_markers_are_found_where_they_are(marked: tuple[Path, list[RegisteredView]]) -> None:
    markers = find_markers(marked[1], marked[0], "DICT_5X5_50", NullProgress())
    assert [(m.number, m.views) for m in markers] == [(3, 3), (7, 3)]
    np.testing.assert_allclose(markers[0].centre, [-APART / 2, 0, 0], atol=0.003)
    assert markers[0].side == pytest.approx(SIDE, rel=0.01)


@pytest.mark.parametrize(
    ("known", "scale"),
    [
        ({"marker_size_m": 0.08}, 0.2),
        ({"marker_distance": (3, 7, 0.5)}, 0.5),
    ],
)
def test_markers_give_metres(
    marked: tuple[Path, list[RegisteredView]], known: dict, scale: float
) -> None:
    config = ScaleConfig(marker_dictionary="DICT_5X5_50", **known)
    frame = marker_frame(marked[1], marked[0], config, NullProgress())
    assert frame.unit == "m"
    assert frame.from_sfm.scale == pytest.approx(scale, rel=0.01)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"marker_dictionary": "DICT_7X7_50", "marker_size_m": 0.1}, "no marker of DICT_7X7_50"),
        ({"marker_distance": (3, 9, 0.5)}, "marker 9 was not found"),
        ({"marker_size_m": 0.08, "marker_distance": (3, 7, 0.5)}, "contradict each other"),
    ],
)
def test_markers_that_do_not_hold(
    marked: tuple[Path, list[RegisteredView]], options: dict, expected: str
) -> None:
    config = ScaleConfig(**{"marker_dictionary": "DICT_5X5_50", **options})
    with pytest.raises(InputError, match=expected):
        marker_frame(marked[1], marked[0], config, NullProgress())


def test_known_distances() -> None:
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=8, height=6, params=[9.0, 4.0, 3.0])
    views = [_view(i, np.eye(4), camera, "") for i in range(3)]
    for i, view in enumerate(views):
        view.c2w[:3, 3] = [2.0 * i, 0, 0]
    frame = distance_frame(views, (("0.jpg", "1.jpg", 0.5), ("0.jpg", "2.jpg", 1.02)))
    assert frame.from_sfm.scale == pytest.approx(0.2525)
    with pytest.raises(InputError, match=r"9\.jpg is not among"):
        distance_frame(views, (("0.jpg", "9.jpg", 1.0),))
    with pytest.raises(InputError, match="contradict each other"):
        distance_frame(views, (("0.jpg", "1.jpg", 0.5), ("0.jpg", "2.jpg", 2.0)))


@pytest.mark.parametrize(
    "options",
    [
        {"marker_size_m": 0.1},
        {"marker_dictionary": "DICT_5X5_50"},
        {"source": "markers"},
        {"source": "distances"},
        {"distances": [["a", "b", 0.0]]},
        {"distances": [["a", "a", 1.0]]},
        {"marker_dictionary": "DICT_5X5_50", "marker_distance": [3, 3, 1.0]},
    ],
)
def test_options_that_say_too_little(options: dict) -> None:
    with pytest.raises(ValidationError):
        ScaleConfig(**options)


def _again(tmp_path: Path, options: dict, gps: NDArray | None = None) -> Path:
    """The box once more from its finished matches, with other options."""
    run = box_run()
    artifacts = tmp_path / "run"
    shutil.copytree(run.folder("ingest"), artifacts / "ingest")
    shutil.copytree(run.artifacts / "work" / "sfm", artifacts / "work" / "sfm")
    if gps is not None:
        record = load_ingest(artifacts / "ingest" / "ingest.json")
        for photo, place in zip(record.photos, gps, strict=True):
            photo.gps = (float(place[0]), float(place[1]), float(place[2]))
        save_ingest(artifacts / "ingest" / "ingest.json", record)
    run_stage("sfm", artifacts, options=options)
    return artifacts


def test_the_whole_scene_is_in_metres(tmp_path: Path) -> None:
    """GPS of the true cameras, ten metres a unit: cameras, points and region follow."""
    run = box_run()
    metres = 10.0 * run.truth.c2w[:, :3, 3]
    positions = pycolmap.GPSTransform().enu_to_ellipsoid(metres, *ORIGIN)
    artifacts = _again(tmp_path, {}, positions)
    run_stage("scene", artifacts)
    run_stage("matches", artifacts)
    scene = json.loads((artifacts / "scene" / "scene.json").read_text())
    assert (scene["unit"], scene["up"]) == ("m", [0.0, 0.0, 1.0])
    assert scene["up_source"].startswith("gravity")
    model = pycolmap.Reconstruction(str(artifacts / "sfm" / "sparse"))
    centres = np.stack([model.image(i).projection_center() for i in sorted(model.reg_image_ids())])
    np.testing.assert_allclose(centres - centres[0], metres - metres[0], atol=0.1)
    assert 3 < scene["radius"] < 20
    assert model.compute_mean_reprojection_error() < 1.0
    back = np.array(scene["frame"]["sfm_from_world"]) @ np.array(scene["frame"]["world_from_sfm"])
    np.testing.assert_allclose(back, np.eye(4), atol=1e-9)


def test_gps_that_was_asked_for_must_hold(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 registered photos carry GPS"):
        _again(tmp_path, {"scale": {"source": "gps"}})
