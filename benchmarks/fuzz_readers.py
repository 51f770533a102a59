"""Every reader of foreign files, each with sound inputs for the fuzzer to damage."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import scipy.io
import trimesh
import yaml
from PIL import Image

from benchmarks.fuzz_mutations import (
    mutate_bytes,
    mutate_json,
    mutate_npz,
    mutate_numbers,
    mutate_yaml,
)
from flows.batch.entries import Choices, read_batch
from flows.batch.record import BatchRecord
from flows.case_folder import CaseFolder
from flows.preflight.measured import Measurements
from flows.settings import resolve
from pipeline.formats.camera_source import load_cameras
from pipeline.formats.colmap_model import save_colmap_model
from pipeline.formats.idr import load_idr_cameras
from pipeline.formats.matches import ViewMatches, load_matches, save_matches
from pipeline.formats.posed import PosedCamera
from pipeline.formats.views import load_views
from pipeline.imaging.decode import decode_photo
from pipeline.imaging.masks import read_mask
from pipeline.imaging.video import judge_frames
from pipeline.metrics.alignment import load_transform
from pipeline.metrics.clouds import load_points
from pipeline.metrics.compare import compare_sources
from pipeline.metrics.dtu import load_dtu_reference
from pipeline.metrics.mobilebrick import load_brick_reference
from pipeline.metrics.tanks import load_crop_volume
from pipeline.metrics.trajectories import load_trajectory
from pipeline.metrics.truth import load_ground_truth_cameras, load_mesh
from pipeline.progress import NullProgress
from pipeline.store.store import Store


@dataclass(frozen=True)
class Reader:
    """One reader of foreign files.

    Attributes:
        file: where its input lies beneath the work folder, with what belongs to it beside it.
        seeds: sound inputs.
        read: reads the file at a path.
        mutate: makes another input of a sound one.
    """

    file: str
    seeds: list[bytes] = field(repr=False)
    read: Callable[[Path], Any]
    mutate: Callable[[bytes, random.Random], bytes] = mutate_bytes


def readers(work: Path) -> dict[str, Reader]:
    """All of them, with sound inputs made in `work`."""
    found = {**_cameras(work), **_records(work), **_lists(), **_pictures(work), **_truths(work)}
    for reader in found.values():
        (work / reader.file).parent.mkdir(parents=True, exist_ok=True)
    return found


def _cameras(work: Path) -> dict[str, Reader]:
    """Cameras and matches of other programs."""
    mats = {f"world_mat_{i}": np.eye(4) for i in range(3)}
    idr = _npz(mats | {f"scale_mat_{i}": np.eye(4) for i in range(3)})
    rows, marks = np.arange(20, dtype=np.float32).reshape(5, 4), np.zeros(5, dtype=bool)
    save_matches(work / "m", [ViewMatches([1, 2], [rows, rows], [marks, marks])])
    matches = (work / "m" / "000000.npz").read_bytes()
    _write(work / "named" / "cameras.npz", idr)
    names, pose, K = _json(["a.png", "b.png", "c.png"]), np.eye(4), _intrinsics()
    for number in (0, 1):
        _write(work / "brick" / "pose" / f"{number}.txt", _text(pose))
        _write(work / "brick" / "intrinsic" / f"{number}.txt", _text(K))
        _write(work / "arkit" / f"frame_{number}.json", _arkit())
    transforms = Reader("transforms.json", [_json(_transforms())], load_cameras, mutate_json)
    return {
        "cameras.npz": Reader("cameras.npz", [idr], load_idr_cameras, mutate_npz),
        "image_names.json": Reader(
            "named/image_names.json",
            [names],
            lambda path: load_cameras(path.with_name("cameras.npz")),
            mutate_json,
        ),
        "matches.npz": Reader(
            "m/000000.npz", [matches], lambda path: load_matches(path.parent, 3), mutate_npz
        ),
        "transforms.json": transforms,
        "ARKit frame": Reader(
            "arkit/frame_2.json", [_arkit()], lambda path: load_cameras(path.parent), mutate_json
        ),
        "pose text": Reader("brick/pose/0.txt", [_text(pose)], _load_two_above, mutate_numbers),
        "intrinsic text": Reader(
            "brick/intrinsic/1.txt", [_text(K)], _load_two_above, mutate_numbers
        ),
        "trajectory.txt": Reader("t.txt", _trajectories(), load_trajectory, mutate_numbers),
        **_colmap(work),
    }


def _colmap(work: Path) -> dict[str, Reader]:
    """COLMAP's files, each beside a sound one of the other sort."""
    lenses = {
        "PINHOLE": (500.0, 510.0, 32.0, 24.0),
        "SIMPLE_RADIAL": (500.0, 32.0, 24.0, 0.01),
        "OPENCV": (500.0, 510.0, 32.0, 24.0, 0.01, 0.0, 0.0, 0.0),
    }
    cameras = [
        PosedCamera(f"{index}.png", model, params, (64, 48), np.eye(4))
        for index, (model, params) in enumerate(lenses.items())
    ]
    found = {}
    for form, suffix, mutate in (("binary", "bin", mutate_bytes), ("text", "txt", mutate_numbers)):
        for kind in ("cameras", "images"):
            folder = work / f"colmap-{kind}-{suffix}"
            save_colmap_model(folder, cameras, form=form)  # type: ignore[arg-type]
            file = folder / f"{kind}.{suffix}"
            found[f"COLMAP {file.name}"] = Reader(
                f"{folder.name}/{file.name}",
                [file.read_bytes()],
                lambda path: load_cameras(path.parent),
                mutate,
            )
    return found


def _records(work: Path) -> dict[str, Reader]:
    """What we write ourselves, and others may have changed."""
    views = [{"index": 0, "name": "a.jpg", "registered": True, "reason": None}] * 2
    recipe = {"stage": "mesh", "version": 1, "options": {}, "seed": 0, "inputs": {}, "external": {}}
    files = {"mesh.ply": {"size": 3, "sha256": "x"}}
    manifest = {"recipe": recipe, "key": "k", "files": files, "verdict": {"status": "ok"}}
    record = {"photos": "/p", "external": {}, "preset": "fast", "settings": {}}
    runs = [{"name": "a", "case": "a", "preset": "f", "seed": 0, "photos": "p"}]
    measured = {"stage": "sfm", "device": "cpu", "wall_s": 1.0, "expected_s": 1.0}
    metric = {"name": "chamfer_of_radius", "value": 1.0, "unit": "mm", "label": "Chamfer"}
    return {
        "views.json": Reader("views.json", [_json(views)], load_views, mutate_json),
        "manifest.json": Reader(
            "s/store/mesh/k/manifest.json",
            [_json(manifest)],
            lambda _: Store(work / "s").find("mesh", "k", deep=True),
            mutate_json,
        ),
        "run.json": Reader(
            "out/.porf/run.json",
            [_json({**record, "keys": {"sfm": "k"}})],
            lambda _: CaseFolder(work / "out").load_record(),
            mutate_json,
        ),
        "batch.json": Reader(
            "batch.json",
            [_json({"source": "x", "runs": runs})],
            lambda path: BatchRecord.load(path.parent),
            mutate_json,
        ),
        "measured.jsonl": Reader(
            "m.jsonl",
            [_json({**measured, "memory_gb": 1.0, "expected_gb": 1.0})],
            Measurements,
            mutate_json,
        ),
        "metrics.json": Reader(
            "metrics.json",
            [_json({"metrics": [metric]})],
            lambda p: compare_sources([str(p)]),
            mutate_json,
        ),
    }


def _lists() -> dict[str, Reader]:
    """What users write by hand."""
    listed = {"cases": ["a", {"photos": "b", "set": {"train.steps": 3}}], "seeds": [0, 1]}
    settings = {
        "seed": 1,
        "train": {"steps": 5, "grid": {"samples": 20}},
        "mesh": {"resolution": 64},
    }
    return {
        "list.yaml": Reader(
            "list.yaml",
            [_yaml(listed)],
            lambda path: read_batch(path, path.parent / "results", Choices()),
            mutate_yaml,
        ),
        "settings.yaml": Reader(
            "s.yaml", [_yaml(settings)], lambda path: resolve("fast", path), mutate_yaml
        ),
    }


def _pictures(work: Path) -> dict[str, Reader]:
    """Photos, masks and videos."""
    noise = np.random.default_rng(0).integers(0, 255, (80, 96, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((192, 160))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    photos = {}
    for form in ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "HEIF"):
        buffer = io.BytesIO()
        image.save(buffer, form, **({"exif": exif} if form in ("JPEG", "WEBP", "TIFF") else {}))
        photos[form] = buffer.getvalue()
    mask = io.BytesIO()
    image.convert("L").save(mask, "PNG")
    decoded = decode_photo(_write(work / "photo.png", photos["PNG"]))
    videos = [_video(np.asarray(image), form) for form in ("mp4", "matroska", "avi")]
    return {
        "photo": Reader("photo.jpg", list(photos.values()), decode_photo),
        "mask": Reader("mask.png", [mask.getvalue()], lambda path: read_mask(path, decoded)),
        "video": Reader("video.mp4", videos, lambda path: judge_frames(path, NullProgress())),
    }


def _truths(work: Path) -> dict[str, Reader]:
    """What evaluation compares with."""
    ball = trimesh.creation.icosphere(1)
    plys = [ball.export(file_type="ply"), ball.export(file_type="ply", encoding="ascii")]
    others = [ball.export(file_type=form) for form in ("obj", "stl", "glb")]
    mats = {f"world_mat_{i}": np.eye(4) for i in range(3)}
    idr = _npz(mats | {f"scale_mat_{i}": np.eye(4) for i in range(3)})
    volume = {"orthogonal_axis": "Z", "axis_min": -1.0, "axis_max": 1.0}
    volume["bounding_polygon"] = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    _write(work / "dtu" / "Points" / "stl" / "stl001_total.ply", plys[0])
    observed = {"ObsMask": np.ones((4, 4, 4)), "BB": np.ones((2, 3)), "Res": np.ones((1, 1))}
    _write(work / "dtu" / "ObsMask" / "Plane1.mat", _mat({"P": np.ones((4, 1))}))
    _write(work / "scene" / "mesh" / "gt_mesh.ply", plys[0])
    readers = {
        "truth.npz": Reader("truth/cameras.npz", [idr], load_ground_truth_cameras, mutate_npz),
        "transform.txt": Reader("t4.txt", [_text(np.eye(4))], load_transform, mutate_numbers),
        "crop volume": Reader("crop.json", [_json(volume)], load_crop_volume, mutate_json),
        "mesh.ply": Reader("mesh.ply", plys, load_mesh),
        "DTU mask": Reader(
            "dtu/ObsMask/ObsMask1_10.mat",
            [_mat(observed)],
            lambda path: load_dtu_reference(path.parents[1], 1),
        ),
        "MobileBrick grid": Reader(
            "scene/visibility_mask.npy",
            [_visibility()],
            lambda path: load_brick_reference(path.parent),
        ),
    }
    for suffix, content in zip(("obj", "stl", "glb"), others, strict=True):
        sound = content.encode() if isinstance(content, str) else content
        readers[f"mesh.{suffix}"] = Reader(f"mesh.{suffix}", [sound], load_points)
    return readers


def _load_two_above(path: Path) -> Any:
    return load_cameras(path.parents[1])


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _yaml(value: Any) -> bytes:
    return yaml.safe_dump(value).encode()


def _text(matrix: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savetxt(buffer, matrix)
    return buffer.getvalue()


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _mat(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, arrays, do_compression=True)
    return buffer.getvalue()


def _visibility() -> bytes:
    """MobileBrick keeps its grid as a pickled dictionary in an array."""
    grid = {"mask": np.ones(8), "resolutions": [2, 2, 2], "voxel_size": 0.1, "min_pts": np.zeros(3)}
    buffer = io.BytesIO()
    np.save(buffer, np.array(grid, dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _intrinsics() -> np.ndarray:
    return np.array([[500.0, 0.0, 32.0], [0.0, 500.0, 24.0], [0.0, 0.0, 1.0]])


def _arkit() -> bytes:
    pose, K = np.eye(4).ravel().tolist(), _intrinsics().ravel().tolist()
    return _json({"cameraPoseARFrame": pose, "intrinsics": K})


def _transforms() -> dict[str, Any]:
    frame = {"file_path": "images/a.png", "transform_matrix": np.eye(4).tolist()}
    shared = {"fl_x": 500.0, "fl_y": 500.0, "cx": 32.0, "cy": 24.0, "w": 64, "h": 48}
    return {"camera_model": "OPENCV", **shared, "k1": 0.0, "frames": [frame] * 3}


def _trajectories() -> list[bytes]:
    """Rows of 16 and 12 numbers, and TUM's eight."""
    tum = [[float(t), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0] for t in range(3)]
    return [_text(np.eye(4)[:rows].reshape(1, -1).repeat(3, axis=0)) for rows in (4, 3)] + [
        _text(np.array(tum))
    ]


def _video(picture: np.ndarray, form: str) -> bytes:
    """A second of a picture that moves sideways."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form) as container:
        stream = container.add_stream("mpeg4", rate=12)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for step in range(12):
            cut = np.ascontiguousarray(picture[:64, 4 * step : 4 * step + 96])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(cut, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()
