"""Damaged and hostile files are refused in our words; the long form is `benchmarks/fuzz.py`."""

import io
import random
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import try_once
from benchmarks.fuzz_readers import Reader, readers
from pipeline.errors import InputError
from pipeline.formats.archive import check_unpacked_size
from pipeline.formats.idr import load_idr_cameras
from pipeline.formats.matches import read_npz_arrays
from pipeline.imaging.decode import UnusablePhotoError, decode_photo

NAMES = (
    "cameras.npz",
    "image_names.json",
    "matches.npz",
    "transforms.json",
    "ARKit frame",
    "pose text",
    "intrinsic text",
    "trajectory.txt",
    "COLMAP cameras.bin",
    "COLMAP images.bin",
    "COLMAP cameras.txt",
    "COLMAP images.txt",
    "views.json",
    "manifest.json",
    "run.json",
    "batch.json",
    "measured.jsonl",
    "metrics.json",
    "list.yaml",
    "settings.yaml",
    "photo",
    "mask",
    "video",
    "truth.npz",
    "transform.txt",
    "crop volume",
    "mesh.ply",
    "DTU mask",
    "MobileBrick grid",
    "mesh.obj",
    "mesh.stl",
    "mesh.glb",
)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Reader]]]:
    folder = tmp_path_factory.mktemp("fuzz")
    yield folder, readers(folder)


def test_every_reader_reads_its_sound_inputs(known: tuple[Path, dict[str, Reader]]) -> None:
    folder, found = known
    assert set(found) == set(NAMES)
    for reader in found.values():
        for content in reader.seeds:
            path = folder / reader.file
            path.write_bytes(content)
            if reader.file != "list.yaml":
                reader.read(path)


@pytest.mark.parametrize("name", NAMES)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 2**32))
def test_no_input_breaks_a_reader(
    known: tuple[Path, dict[str, Reader]], name: str, seed: int
) -> None:
    folder, found = known
    assert try_once(found[name], seed, folder) is None


def test_an_archive_that_unpacks_to_too_much_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("world_mat_0.npy", b"\0" * 5_000_000)
    assert path.stat().st_size < 10_000
    with pytest.raises(ValueError, match="unpacks to"):
        check_unpacked_size(path, most_bytes=1_000_000)
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\x01\x02")
    data[directory + 24 : directory + 28] = struct.pack("<I", 2**32 - 2)  # claims four gigabytes
    path.write_bytes(bytes(data))
    for read in (load_idr_cameras, read_npz_arrays):
        with pytest.raises(InputError, match="unpacks to"):
            read(path)


def test_an_image_that_claims_too_many_pixels_is_refused_undecoded(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    picture += chunk(b"IDAT", zlib.compress(b"\0" * 1_000_000)) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(picture)
    with pytest.raises(UnusablePhotoError):
        decode_photo(tmp_path / "bomb.png")


def test_the_fuzzer_notices_what_it_looks_for(tmp_path: Path) -> None:
    def fails(path: Path) -> None:
        raise KeyError(path.name)

    assert "KeyError" in (try_once(Reader("x", [b"a"], fails), 0, tmp_path) or "")
    reader = Reader("x", [b"abc" * 50], lambda p: io.BytesIO(p.read_bytes()))
    damaged = {reader.mutate(reader.seeds[0], random.Random(i)) for i in range(50)}
    assert len(damaged) > 30
