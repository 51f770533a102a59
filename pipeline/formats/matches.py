"""Two-view matches in the PoRF convention: one npz a view, object arrays inside.

`colmap_matches/000007.npz` holds, for reference view 7, `src_idx` (S,) and `match`, an object array
of S arrays (M, 4): x_ref, y_ref, x_src, y_src in undistorted pixels. We add `heldout`, S boolean
arrays (M,), which other readers ignore. Object arrays are pickles, and a pickle can execute code:
files are read with an unpickler that admits numpy arrays and nothing else.
"""

import io
import pickle
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.archive import check_unpacked_size

_ADMITTED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.numeric", "_frombuffer"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),  # how protocol 2 stores bytes
}


@dataclass(frozen=True)
class ViewMatches:
    """Matches of one reference view with its source views.

    Attributes:
        sources: indices of the source views.
        matches_px: one (M, 4) float32 array a source: x_ref, y_ref, x_src, y_src, pixels (IDR).
        heldout: one boolean (M,) array a source: rows kept out of every optimisation.
    """

    sources: list[int]
    matches_px: list[NDArray]
    heldout: list[NDArray]


def match_file_name(index: int) -> str:
    """File name of the matches of view `index`."""
    return f"{index:06d}.npz"


def save_matches(folder: Path, views: Sequence[ViewMatches]) -> None:
    """Write one file a view into `folder`; the original PoRF code loads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, view in enumerate(views):
        arrays: dict[str, Any] = {
            "src_idx": np.asarray(view.sources, dtype=np.int64),
            "match": _object_array(view.matches_px, np.float32),
            "heldout": _object_array(view.heldout, np.bool_),
        }
        with (folder / match_file_name(index)).open("wb") as file:
            np.savez(file, **arrays)


def load_matches(folder: Path, view_count: int) -> list[ViewMatches]:
    """Read the matches of `view_count` views; views whose file is missing have none.

    Raises:
        InputError: the folder is missing or empty, a file is damaged or holds anything but
            arrays, or a source index lies outside the views.
    """
    if not folder.is_dir() or not any(folder.glob("*.npz")):
        raise InputError(f"no match files in {folder}: expected 000000.npz, 000001.npz, …")
    empty = ViewMatches([], [], [])
    views = []
    for index in range(view_count):
        path = folder / match_file_name(index)
        views.append(_load_view(path, view_count) if path.is_file() else empty)
    return views


def _load_view(path: Path, view_count: int) -> ViewMatches:
    stored = read_npz_arrays(path)
    if "src_idx" not in stored or "match" not in stored:
        raise InputError(f"{path}: expected the arrays src_idx and match, got {sorted(stored)}")
    try:
        sources = [int(i) for i in np.atleast_1d(stored["src_idx"])]
        matches_px = [np.asarray(m, dtype=np.float32).reshape(-1, 4) for m in stored["match"]]
        marks = np.atleast_1d(stored.get("heldout", ()))
        heldout = [np.asarray(h, dtype=bool).reshape(-1) for h in marks]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: its arrays hold no matches ({error})") from error
    if len(matches_px) != len(sources):
        raise InputError(f"{path}: {len(sources)} source views but {len(matches_px)} match arrays")
    outside = [i for i in sources if not 0 <= i < view_count]
    if outside:
        raise InputError(f"{path}: source view {outside[0]} is not among the {view_count} views")
    if len(heldout) != len(sources):
        heldout = [np.zeros(len(m), dtype=bool) for m in matches_px]
    if any(len(h) != len(m) for h, m in zip(heldout, matches_px, strict=True)):
        raise InputError(f"{path}: the held-out marks do not fit the matches")
    return ViewMatches(sources, matches_px, heldout)


def read_npz_arrays(path: Path) -> dict[str, NDArray]:
    """Read every array of an npz, object arrays included, without executing anything.

    Raises:
        InputError: not a readable npz, or an object array that holds anything but arrays.
    """
    arrays = {}
    try:
        check_unpacked_size(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                arrays[member.removesuffix(".npy")] = _read_npy(archive.read(member))
    except Exception as error:  # damaged headers raise anything, tokenize.TokenError included
        raise InputError(f"{path} is not a readable npz of arrays ({error})") from error
    return arrays


def read_npy_object(path: Path) -> Any:
    """The one object that `np.save` stored in a file: dicts, lists, numbers and arrays only.

    Raises:
        InputError: not a readable npy, or it holds anything else.
    """
    try:
        return _read_npy(path.read_bytes()).item()
    except Exception as error:  # as above
        raise InputError(f"{path} is not a readable npy ({error})") from error


def _read_npy(content: bytes) -> NDArray:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    if not dtype.hasobject:
        return np.load(io.BytesIO(content), allow_pickle=False)
    loaded = _ArraysOnly(stream).load()
    if not isinstance(loaded, np.ndarray) or loaded.shape != shape:
        raise ValueError("an object array that is not an array")
    return loaded


class _ArraysOnly(pickle.Unpickler):
    """Admits what numpy arrays are made of; anything else is refused by name."""

    def find_class(self, module: str, name: str) -> Any:
        """See `pickle.Unpickler.find_class`."""
        if (module, name) in _ADMITTED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"refused to load {module}.{name}: only arrays are admitted")


def _object_array(arrays: Sequence[NDArray], dtype: Any) -> NDArray:
    holder = np.empty(len(arrays), dtype=object)
    for i, array in enumerate(arrays):
        holder[i] = np.asarray(array, dtype=dtype)
    return holder
