"""Cameras in foreign formats: what is written is read again, and what cannot be is refused."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.formats.camera_source import load_cameras
from pipeline.formats.colmap_model import ScenePoint, load_colmap_model, save_colmap_model
from pipeline.formats.idr import save_idr_cameras
from pipeline.formats.nerfstudio import load_transforms, save_transforms
from pipeline.formats.posed import (
    LENS_PARAMS,
    ONE_FOCAL,
    PosedCamera,
    focal_and_centre,
    from_idr,
    safe_name,
    scaled,
    to_idr,
)
from pipeline.geometry.cameras import look_at, make_pose

NERFSTUDIO = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "OPENCV_FISHEYE")


@st.composite
def posed_cameras(draw: st.DrawFn, models: tuple[str, ...] = tuple(LENS_PARAMS)):
    """One to four photos, with lenses of their own or a shared one."""
    floats = st.floats(-1, 1, allow_nan=False)
    cameras: list[PosedCamera] = []
    share = draw(st.booleans())
    for i in range(draw(st.integers(1, 4))):
        rotation = Rotation.from_rotvec([3 * draw(floats) for _ in range(3)]).as_matrix()
        c2w = make_pose(rotation, np.array([50 * draw(floats) for _ in range(3)]))
        model = draw(st.sampled_from(models))
        size = (draw(st.integers(100, 4000)), draw(st.integers(100, 4000)))
        focal = max(size) * (1.5 + draw(floats) * 0.5)
        head = [focal] if model in ONE_FOCAL else [focal, focal * (1 + 0.1 * draw(floats))]
        head += [size[0] * (0.5 + 0.2 * draw(floats)), size[1] * (0.5 + 0.2 * draw(floats))]
        tail = [0.1 * draw(floats) for _ in range(LENS_PARAMS[model] - len(head))]
        lens = (model, tuple(head + tail), size)
        if share and cameras:
            lens = (cameras[0].model, cameras[0].params, cameras[0].size_px)
        cameras.append(PosedCamera(f"foto {i} ä.jpg", *lens, c2w))
    return cameras


def same(written: list[PosedCamera], read: list[PosedCamera]) -> None:
    assert [c.name for c in written] == [c.name for c in read]
    for old, new in zip(written, read, strict=True):
        assert (old.model, old.size_px) == (new.model, new.size_px)
        np.testing.assert_allclose(old.params, new.params, rtol=1e-12)
        np.testing.assert_allclose(old.c2w, new.c2w, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(cameras=posed_cameras(), form=st.sampled_from(["text", "binary"]))
def test_colmap_models_come_back(cameras: list[PosedCamera], form: str) -> None:
    with TemporaryDirectory() as folder:
        save_colmap_model(Path(folder), cameras, form=form)  # type: ignore[arg-type]
        same(cameras, load_colmap_model(Path(folder)).cameras)


@settings(max_examples=20, deadline=None)
@given(cameras=posed_cameras(NERFSTUDIO))
def test_transforms_come_back(cameras: list[PosedCamera]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "transforms.json"
        save_transforms(path, cameras)
        same(cameras, load_transforms(path).cameras)


@settings(max_examples=20, deadline=None)
@given(cameras=posed_cameras(("SIMPLE_PINHOLE", "PINHOLE")))
def test_idr_cameras_come_back(cameras: list[PosedCamera]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "cameras.npz"
        save_idr_cameras(path, to_idr(cameras, np.eye(4)))
        (Path(folder) / "image_names.json").write_text(json.dumps([c.name for c in cameras]))
        read = load_cameras(path)
    assert read.named
    for old, new in zip(cameras, read.cameras, strict=True):
        assert old.name == new.name
        np.testing.assert_allclose(old.K, new.K, rtol=1e-7, atol=1e-6)
        np.testing.assert_allclose(old.c2w, new.c2w, atol=1e-6)


def _three() -> list[PosedCamera]:
    lens = ("RADIAL", (900.0, 510.0, 370.0, 0.02, -0.01), (1000, 750))
    return [
        PosedCamera(f"{i}.jpg", *lens, look_at(np.array([i - 1.0, 0.2 * i, -4]), np.zeros(3), up))
        for i, up in enumerate(np.array([[0, -1.0, 0]] * 3))
    ]


def test_the_written_model_projects_as_colmap_does(tmp_path: Path) -> None:
    """Poses, lens and tracks as COLMAP itself understands them."""
    cameras = _three()
    xyz = np.array([0.1, -0.2, 0.3])
    seen = []
    for camera in cameras:
        w2c = np.linalg.inv(camera.c2w)
        lens = pycolmap.Camera(model=camera.model, width=1000, height=750, params=camera.params)
        seen.append(lens.img_from_cam((w2c[:3, :3] @ xyz + w2c[:3, 3])[None])[0])
    points = [ScenePoint(xyz, np.array([1, 2, 3], np.uint8), [0, 1, 2], np.array(seen))]
    for form in ("text", "binary"):
        save_colmap_model(tmp_path / form, cameras, points, form=form)  # type: ignore[arg-type]
        model = pycolmap.Reconstruction(str(tmp_path / form))
        assert len(model.cameras) == 1
        assert model.num_reg_images() == 3
        assert next(iter(model.points3D.values())).track.length() == 3
        assert model.compute_mean_reprojection_error() < 1e-9


def test_transforms_are_opengl(tmp_path: Path) -> None:
    """A camera at the origin that looks along world -z has the identity in nerfstudio."""
    c2w = np.diag([1.0, -1.0, -1.0, 1.0])
    save_transforms(
        tmp_path / "transforms.json",
        [PosedCamera("a.jpg", "PINHOLE", (500.0, 500.0, 320.0, 240.0), (640, 480), c2w)],
        {"unit": "m"},
    )
    document = json.loads((tmp_path / "transforms.json").read_text())
    assert document["frames"][0]["transform_matrix"] == np.eye(4).tolist()
    assert (document["fl_x"], document["cx"], document["unit"]) == (500.0, 320.0, "m")


def test_intrinsics_of_a_frame_win_over_shared_ones(tmp_path: Path) -> None:
    frames = [
        {"file_path": "./images/a.jpg", "transform_matrix": np.eye(4).tolist()},
        {"file_path": "b.jpg", "transform_matrix": np.eye(4).tolist(), "fl_x": 700, "k3": 0.1},
    ]
    document = {"fl_x": 600, "cx": 320, "cy": 240, "w": 640, "h": 480, "frames": frames}
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    first, second = load_transforms(tmp_path / "transforms.json").cameras
    assert first.name == "images/a.jpg"
    assert focal_and_centre(first.model, first.params) == (600, 600, 320, 240)
    assert (second.model, second.params[0], second.params[8]) == ("FULL_OPENCV", 700, 0.1)


def test_the_field_of_view_of_blender_scenes(tmp_path: Path) -> None:
    frame = {"file_path": "a", "transform_matrix": np.eye(4).tolist()}
    document = {"camera_angle_x": np.pi / 2, "w": 640, "h": 480, "frames": [frame]}
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    camera = load_transforms(tmp_path / "transforms.json").cameras[0]
    np.testing.assert_allclose(camera.params[:4], [320, 320, 320, 240])


def test_resizing_moves_the_principal_point_with_the_corner() -> None:
    camera = PosedCamera("a", "SIMPLE_RADIAL", (900.0, 510.0, 370.0, 0.1), (1000, 750), np.eye(4))
    assert scaled(camera, (500, 375)).params == (450.0, 255.0, 185.0, 0.1)


def test_half_a_pixel_between_colmap_and_idr() -> None:
    cameras = [PosedCamera("a", "PINHOLE", (500.0, 500.0, 320.0, 240.0), (640, 480), np.eye(4))]
    idr = to_idr(cameras, np.eye(4))
    np.testing.assert_allclose(idr.K[0, :2, 2], [319.5, 239.5])
    assert from_idr(idr, ["a"], (640, 480), "here")[0].params == cameras[0].params
    with pytest.raises(InputError, match="distortion"):
        to_idr(_three(), np.eye(4))


@pytest.mark.parametrize(
    "name", ["../a.jpg", "a/../../b.jpg", "/etc/passwd", "C:\\a.jpg", "..\\a.jpg", "", " ", "a\0b"]
)
def test_names_that_lead_out_of_the_folder(name: str) -> None:
    with pytest.raises(InputError, match="leads out of its folder"):
        safe_name(name, "here")


def test_a_traversal_in_files_is_refused(tmp_path: Path) -> None:
    frame = {"file_path": "../../x.jpg", "transform_matrix": np.eye(4).tolist()}
    document = {"fl_x": 600, "cx": 320, "cy": 240, "frames": [frame]}
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="leads out"):
        load_cameras(tmp_path)
    model = tmp_path / "model"
    save_colmap_model(model, _three(), form="text")
    text = (model / "images.txt").read_text()
    (model / "images.txt").write_text(text.replace("1.jpg", "../1.jpg"))
    with pytest.raises(InputError, match="leads out"):
        load_cameras(model)


@pytest.mark.parametrize("width", ["0", "-5", "1" + "0" * 400])
def test_impossible_image_sizes_are_refused(tmp_path: Path, width: str) -> None:
    save_colmap_model(tmp_path, _three(), form="text")
    lines = (tmp_path / "cameras.txt").read_text().splitlines()
    words = [line.split() for line in lines]
    sized = [[*w[:2], width, *w[3:]] if w[0].isdigit() else w for w in words]
    (tmp_path / "cameras.txt").write_text("\n".join(" ".join(w) for w in sized))
    with pytest.raises(InputError, match="image size of"):
        load_cameras(tmp_path)


def test_damaged_models_are_refused_and_never_hang(tmp_path: Path) -> None:
    save_colmap_model(tmp_path, _three())
    for name in ("cameras.bin", "images.bin"):
        whole = (tmp_path / name).read_bytes()
        for cut in (0, 4, len(whole) // 2, len(whole) - 3):
            (tmp_path / name).write_bytes(whole[:cut])
            with pytest.raises(InputError, match="COLMAP model"):
                load_cameras(tmp_path)
        (tmp_path / name).write_bytes(struct.pack("<Q", 2**60) + whole[8:])
        with pytest.raises(InputError, match="COLMAP model"):
            load_cameras(tmp_path)
        (tmp_path / name).write_bytes(whole)
    assert len(load_cameras(tmp_path).cameras) == 3


def _scaled_pose(document: dict) -> None:
    document["frames"][0]["transform_matrix"][0][0] = 2.0


def _mirrored(document: dict) -> None:
    document["frames"][0]["transform_matrix"][2][2] = -1.0


def _absurd_focal(document: dict) -> None:
    document["fl_x"] = 4.2


def _no_focal(document: dict) -> None:
    del document["fl_x"]


def _no_frames(document: dict) -> None:
    del document["frames"]


def _text_number(document: dict) -> None:
    document["cx"] = "320"


def _no_pose(document: dict) -> None:
    del document["frames"][0]["transform_matrix"]


@pytest.mark.parametrize(
    ("harm", "expected"),
    [
        (_scaled_pose, "not rigid"),
        (_mirrored, "mirrors"),
        (_absurd_focal, "focal length of 4.2 pixels"),
        (_no_focal, "no focal length"),
        (_no_frames, "no list of frames"),
        (_text_number, "expected a number"),
        (_no_pose, "no transform_matrix"),
    ],
)
def test_transforms_that_cannot_be(
    tmp_path: Path, harm: Callable[[dict], None], expected: str
) -> None:
    frame = {"file_path": "a.jpg", "transform_matrix": np.eye(4).tolist()}
    document = {"fl_x": 600, "cx": 320, "cy": 240, "w": 640, "h": 480, "frames": [frame]}
    harm(document)
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=expected):
        load_cameras(tmp_path / "transforms.json")


def test_phone_poses_in_both_layouts(tmp_path: Path) -> None:
    K = np.array([[1500.0, 0, 960], [0, 1500, 720], [0, 0, 1]])
    c2w = look_at(np.array([0.3, 0.1, -1.0]), np.zeros(3), np.array([0, -1.0, 0]))
    brick, app = tmp_path / "brick", tmp_path / "app"
    for folder in (brick / "pose", brick / "intrinsic", app):
        folder.mkdir(parents=True)
    np.savetxt(brick / "pose" / "000000.txt", c2w)
    np.savetxt(brick / "intrinsic" / "000000.txt", K)
    arkit = (c2w @ np.diag([1.0, -1, -1, 1])).ravel().tolist()
    frame = {"cameraPoseARFrame": arkit, "intrinsics": K.ravel().tolist()}
    (app / "000000.json").write_text(json.dumps(frame))
    for folder, up in ((brick, None), (app, (0.0, 1.0, 0.0))):
        read = load_cameras(folder)
        assert read.up == up
        assert read.unit == "m"
        np.testing.assert_allclose(read.cameras[0].c2w, c2w, atol=1e-12)
        assert read.cameras[0].params == (1500, 1500, 960.5, 720.5)
    (brick / "intrinsic" / "000000.txt").unlink()
    with pytest.raises(InputError, match="no intrinsics"):
        load_cameras(brick)


def test_what_is_no_camera_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not exist"):
        load_cameras(tmp_path / "absent")
    with pytest.raises(InputError, match="no cameras recognised"):
        load_cameras(tmp_path)
    (tmp_path / "a.json").write_text("{not json")
    with pytest.raises(InputError, match="not readable JSON"):
        load_cameras(tmp_path / "a.json")
