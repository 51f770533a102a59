"""Feed damaged and hostile files to every reader of foreign files.

    python benchmarks/fuzz.py [--inputs 100000] [--reader NAME …] [--seed 0]

Every reader must return, or refuse with an error of ours, within `LIMIT_S` seconds and
`MEMORY_GB` of memory beyond what it had. Each runs in a process of its own, so that a crash of
native code is seen. What breaks a reader is kept beneath `fuzz_found/`.
"""

import argparse
import io
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from flows.batch.entries import Choices, read_batch
from flows.batch.record import BatchRecord
from flows.case_folder import CaseFolder
from flows.preflight.measured import Measurements
from flows.settings import resolve
from pipeline.errors import PorfError
from pipeline.formats.camera_source import load_cameras
from pipeline.formats.idr import load_idr_cameras
from pipeline.formats.matches import ViewMatches, load_matches, save_matches
from pipeline.formats.views import load_views
from pipeline.imaging.decode import UnusablePhotoError, decode_photo
from pipeline.imaging.masks import read_mask
from pipeline.metrics.truth import load_ground_truth_cameras, load_mesh
from pipeline.store.store import Store

LIMIT_S = 20
MEMORY_GB = 3.0
_ALLOWED = (PorfError, UnusablePhotoError)
_INTERESTING: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**70), 1e308, -0.0, float("nan"), float("inf"),
    "", "a", "..", "../../etc/passwd", "/etc/passwd", "\x1b[2J", "\u202e", "a\0b", "x" * 5000,
    [], {}, [[]], [None], {"": None}, "*", "!!python/object:os.system", "1e999", "NaN",
)  # fmt: skip


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat or overwrite some bytes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if not data:
            return bytes(rng.randbytes(rng.randrange(64)))
        at, length = rng.randrange(len(data)), rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(6)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 50))
        elif kind == 4:
            data[at : at + length] = rng.choice((b"\xff", b"\0", b"\x7f")) * length
        else:
            data[at : at + length] = rng.randbytes(length)
    return bytes(data)


def mutate_tree(value: Any, rng: random.Random) -> Any:
    """Replace, drop or double one node of plain data."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return rng.choice(_INTERESTING)
    kind = rng.randrange(8)
    if isinstance(value, list):
        at = rng.randrange(len(value))
        dropped, doubled = [], value[at:] * rng.choice((2, 20))
        inside = (dropped, doubled)[kind] if kind < 2 else [mutate_tree(value[at], rng)]
        return [*value[:at], *inside, *value[at + 1 :]]
    name = rng.choice(list(value))
    if kind == 0:
        return {k: v for k, v in value.items() if k != name}
    if kind == 1:
        return {**value, str(rng.choice(_INTERESTING)): rng.choice(_INTERESTING)}
    return {**value, name: mutate_tree(value[name], rng)}


def mutate_json(content: bytes, rng: random.Random) -> bytes:
    """Damage JSON in its structure mostly, in its bytes sometimes, and nest it too deep rarely."""
    draw = rng.random()
    if draw < 0.02:
        return (b"[" if draw < 0.01 else b'{"a":') * rng.choice((500, 100_000))
    if draw < 0.3:
        return mutate_bytes(content, rng)
    value = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutate_tree(value, rng)
    return json.dumps(value).encode(errors="replace")


def mutate_yaml(content: bytes, rng: random.Random) -> bytes:
    """The same for YAML, with its aliases and tags."""
    draw = rng.random()
    if draw < 0.02:
        bomb = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
        bomb += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
        return "\n".join([*bomb, "cases: *a9"]).encode()
    if draw < 0.04:
        return b"cases: " + b"[" * rng.choice((500, 5000))
    if draw < 0.4:
        return mutate_bytes(content, rng)
    value = yaml.safe_load(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = mutate_tree(value, rng)
    return yaml.safe_dump(value, allow_unicode=True).encode(errors="replace")


def mutate_npz(content: bytes, rng: random.Random) -> bytes:
    """Damage one array of an npz, and wrap it up as a sound archive again."""
    if rng.random() < 0.3:
        return mutate_bytes(content, rng)
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        members = old.namelist()
        damaged = rng.choice(members)
        for name in members:
            data = old.read(name)
            if name == damaged:
                data = mutate_bytes(data[:200], rng) + data[200:] if rng.random() < 0.7 else b""
            renamed = rng.choice(("../x.npy", "x", name)) if rng.random() < 0.05 else name
            new.writestr(renamed, data)
    return buffer.getvalue()


@dataclass(frozen=True)
class Reader:
    """One reader of foreign files.

    Attributes:
        file: what its input is called.
        seeds: sound inputs.
        read: reads the file at a path.
        mutate: makes another input of a sound one.
    """

    file: str
    seeds: list[bytes]
    read: Callable[[Path], Any]
    mutate: Callable[[bytes, random.Random], bytes] = mutate_bytes


def readers(work: Path) -> dict[str, Reader]:
    """All of them, with sound inputs made in `work`."""
    photo, mask = _pictures()
    decoded = decode_photo(_written(work / "photo.png", photo["PNG"]))
    mats = {f"world_mat_{i}": np.eye(4) for i in range(3)}
    mats |= {f"scale_mat_{i}": np.eye(4) for i in range(3)}
    cameras = _npz(mats)
    manifest = json.dumps(_manifest()).encode()
    record = {
        "photos": "/p",
        "external": {},
        "preset": "fast",
        "settings": {},
        "keys": {"sfm": "k"},
    }
    views = [{"index": 0, "name": "a.jpg", "registered": True, "reason": None}] * 2
    listed = {"cases": ["a", {"photos": "b", "set": {"train.steps": 3}}], "seeds": [0, 1]}
    settings = {
        "seed": 1,
        "train": {"steps": 5, "grid": {"samples": 20}},
        "mesh": {"resolution": 64},
    }
    batch = {
        "source": "x",
        "runs": [{"name": "a", "case": "a", "preset": "f", "seed": 0, "photos": "p"}],
    }
    measured = {"stage": "sfm", "device": "cpu", "wall_s": 1.0, "expected_s": 1.0}
    measured |= {"memory_gb": 1.0, "expected_gb": 1.0}
    return {
        "cameras.npz": Reader("cameras.npz", [cameras], load_idr_cameras, mutate_npz),
        "truth.npz": Reader("cameras.npz", [cameras], load_ground_truth_cameras, mutate_npz),
        "matches.npz": Reader(
            "000000.npz", [_matches(work)], lambda p: load_matches(p.parent, 3), mutate_npz
        ),
        "views.json": Reader("views.json", [_json(views)], load_views, mutate_json),
        "manifest.json": Reader("manifest.json", [manifest], _read_manifest, mutate_json),
        "run.json": Reader("run.json", [_json(record)], _read_record, mutate_json),
        "batch.json": Reader(
            "batch.json", [_json(batch)], lambda p: BatchRecord.load(p.parent), mutate_json
        ),
        "measured.jsonl": Reader("m.jsonl", [_json(measured)], Measurements, mutate_json),
        "list.yaml": Reader("list.yaml", [_yaml(listed)], _read_list, mutate_yaml),
        "settings.yaml": Reader(
            "s.yaml", [_yaml(settings)], lambda p: resolve("fast", p), mutate_yaml
        ),
        "transforms.json": Reader(
            "transforms.json", [_json(_transforms())], load_cameras, mutate_json
        ),
        "photo": Reader("photo.jpg", list(photo.values()), decode_photo),
        "mask": Reader("mask.png", [mask], lambda p: read_mask(p, decoded)),
        "mesh.ply": Reader("mesh.ply", _meshes(), load_mesh),
    }


def _read_list(path: Path) -> Any:
    return read_batch(path, path.parent / "out", Choices())


def _read_manifest(path: Path) -> Any:
    stored = path.parent / "s" / "store" / "mesh" / "k"
    stored.mkdir(parents=True, exist_ok=True)
    (stored / "manifest.json").write_bytes(path.read_bytes())
    return Store(path.parent / "s").find("mesh", "k", deep=True)


def _read_record(path: Path) -> Any:
    folder = CaseFolder(path.parent / "out")
    folder.hidden.mkdir(parents=True, exist_ok=True)
    (folder.hidden / "run.json").write_bytes(path.read_bytes())
    return folder.load_record()


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _yaml(value: Any) -> bytes:
    return yaml.safe_dump(value).encode()


def _npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _matches(work: Path) -> bytes:
    rows = np.arange(20, dtype=np.float32).reshape(5, 4)
    marks = np.zeros(5, dtype=bool)
    save_matches(work / "m", [ViewMatches([1, 2], [rows, rows], [marks, marks])])
    return (work / "m" / "000000.npz").read_bytes()


def _manifest() -> dict[str, Any]:
    recipe = {"stage": "mesh", "version": 1, "options": {}, "seed": 0, "inputs": {}, "external": {}}
    files = {"mesh.ply": {"size": 3, "sha256": "x"}}
    return {"recipe": recipe, "key": "k", "files": files, "verdict": {"status": "ok"}}


def _transforms() -> dict[str, Any]:
    frame = {"file_path": "images/a.png", "transform_matrix": np.eye(4).tolist()}
    shared = {"fl_x": 500.0, "fl_y": 500.0, "cx": 32.0, "cy": 24.0, "w": 64, "h": 48}
    return {"camera_model": "OPENCV", **shared, "k1": 0.0, "frames": [frame] * 3}


def _pictures() -> tuple[dict[str, bytes], bytes]:
    noise = np.random.default_rng(0).integers(0, 255, (80, 96, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((192, 160))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    photos = {}
    for name in ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "PPM", "HEIF"):
        buffer = io.BytesIO()
        more = {"exif": exif} if name in ("JPEG", "WEBP", "TIFF") else {}
        image.save(buffer, name, **more)
        photos[name] = buffer.getvalue()
    mask = io.BytesIO()
    image.convert("L").save(mask, "PNG")
    return photos, mask.getvalue()


def _meshes() -> list[bytes]:
    import trimesh  # noqa: PLC0415

    ball = trimesh.creation.icosphere(1)
    return [ball.export(file_type="ply"), ball.export(file_type="ply", encoding="ascii")]


def try_once(reader: Reader, seed: int, folder: Path) -> str | None:
    """Read one damaged input; what is wrong with how it ended, or None."""
    rng = random.Random(seed)
    path = folder / reader.file
    path.write_bytes(reader.mutate(rng.choice(reader.seeds), rng))
    signal.signal(signal.SIGALRM, _too_slow)
    signal.alarm(LIMIT_S)
    try:
        reader.read(path)
    except _ALLOWED:
        return None
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    return None


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"no end after {LIMIT_S} s")


def bound_memory() -> None:
    """Let allocations beyond `MEMORY_GB` fail in this process."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = in_use + int(MEMORY_GB * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def run_reader(name: str, first: int, count: int, keep: Path) -> int:
    """Try seeds `first` … in this process; returns how many broke it, and keeps their inputs."""
    broken: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        reader = readers(folder)[name]
        bound_memory()
        for seed in range(first, first + count):
            print(seed, file=sys.stderr, end="\r")
            problem = try_once(reader, seed, folder)
            if problem:
                last = problem.strip().splitlines()[-1][:160]
                broken[last] = broken.get(last, 0) + 1
                if broken[last] == 1:
                    keep.mkdir(exist_ok=True)
                    (keep / f"{name}-{seed}").write_bytes((folder / reader.file).read_bytes())
                    (keep / f"{name}-{seed}.txt").write_text(problem)
    for last, times in broken.items():
        print(f"  {times} × {last}")
    return sum(broken.values())


def main() -> int:
    """Run all readers; exit code 0 only if none broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--reader", action="append", help="only these; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    keep = Path("fuzz_found").absolute()
    if arguments.here:
        (name,) = arguments.reader
        return int(run_reader(name, arguments.seed, arguments.inputs, keep) > 0)
    with tempfile.TemporaryDirectory() as text:
        names = arguments.reader or list(readers(Path(text)))
    each, failed = -(-arguments.inputs // len(names)), 0
    for name in names:
        began = time.monotonic()
        command = [sys.executable, __file__, "--here", "--reader", name, "--inputs", str(each)]
        ended = subprocess.run(
            [*command, "--seed", str(arguments.seed)], stderr=subprocess.DEVNULL, check=False
        )
        how = "ok" if ended.returncode == 0 else f"BROKEN (exit {ended.returncode})"
        print(f"{name:16} {each} inputs  {time.monotonic() - began:6.1f} s  {how}", flush=True)
        failed += ended.returncode != 0
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
