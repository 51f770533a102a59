"""Ground truth as users have it, and how it is matched with the registered views."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.formats.idr import IdrCameras, load_idr_cameras
from pipeline.formats.json_text import parse_json
from pipeline.metrics.clouds import load_prediction
from pipeline.metrics.poses import MIN_VIEWS

NAMES_FILE = "image_names.json"
UNKNOWN_UNIT = "unknown"


@dataclass(frozen=True)
class TrueCameras:
    """Ground-truth cameras.

    Attributes:
        cameras: M cameras in their own world frame; K without distortion.
        names: M photo names, or None if the file does not tell them.
        unit: of lengths in that frame; `unknown` unless the file says so.
    """

    cameras: IdrCameras
    names: list[str] | None
    unit: str


@dataclass(frozen=True)
class Assignment:
    """Which true camera belongs to which registered view.

    Attributes:
        views: (J,) indices of registered views with known truth, ascending.
        truths: (J,) indices of their true cameras.
    """

    views: NDArray
    truths: NDArray


def load_ground_truth_cameras(path: Path) -> TrueCameras:
    """Read true cameras in the IDR convention (pixel centres at integers).

    Beside the file may lie `image_names.json`, the list of the photos' names; without it camera i
    belongs to the i-th of all photos, sorted by name. An array `unit` in the file (`"m"`, `"mm"`)
    names the unit of length.

    Raises:
        InputError: the file is not readable as such cameras, or the names do not fit their count.
    """
    cameras = load_idr_cameras(path)
    with np.load(path, allow_pickle=False) as stored:
        unit = str(stored["unit"]) if "unit" in stored.files else UNKNOWN_UNIT
    names_path = path.with_name(NAMES_FILE)
    names = _load_names(names_path) if names_path.is_file() else None
    if names is not None and len(names) != len(cameras):
        raise InputError(
            f"{path} has {len(cameras)} cameras, but {names_path} has {len(names)} names",
            hint="the names must be those of the cameras, in their order",
        )
    return TrueCameras(cameras, names, unit)


def assign_truth(
    truth: TrueCameras, photo_names: Sequence[str], view_names: Sequence[str]
) -> Assignment:
    """Match true cameras with registered views by photo name.

    Args:
        photo_names: all photos that the user gave, in any order.
        view_names: the registered ones, by view index.

    Names are compared as they are, and where that fails without suffix and letter case, so that
    a converted `IMG_1.JPG` still finds its `img_1.png`.

    Raises:
        InputError: without names, the counts of cameras and photos differ; with names, fewer than
            three registered views have a true camera.
    """
    names = truth.names
    if names is None:
        names = sorted(photo_names)
        if len(names) != len(truth.cameras):
            raise InputError(
                f"the ground truth has {len(truth.cameras)} cameras for {len(names)} photos, and "
                f"no {NAMES_FILE} beside it says which is which",
                hint=f"put {NAMES_FILE}, a list of photo names in the cameras' order, beside it",
            )
    exact = {name: i for i, name in enumerate(names)}
    loose = _unique_stems(names)
    pairs = []
    for view, name in enumerate(view_names):
        found = exact.get(name, loose.get(_stem(name)))
        if found is not None:
            pairs.append((view, found))
    if len(pairs) < MIN_VIEWS:
        raise InputError(
            f"the ground truth fits only {len(pairs)} of {len(view_names)} registered photos: it "
            f"names {_some(names)}, the photos are {_some(view_names)}",
            hint="give the ground truth of these photos, or leave it out",
        )
    views, truths = np.array(pairs).T
    return Assignment(views, truths)


def load_mesh(path: Path) -> trimesh.Trimesh:
    """Read a triangle mesh (PLY, OBJ, STL, GLB …), as it is.

    Raises:
        InputError: not readable, without triangles, with vertices that are not finite, or with
            triangles of no area only.
    """
    return load_prediction(path, needs_faces=True).mesh


def _load_names(path: Path) -> list[str]:
    try:
        names = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not readable as JSON ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path}: expected a JSON list of photo names")
    if len(set(names)) != len(names):
        raise InputError(f"{path}: some photo names occur twice")
    return names


def _stem(name: str) -> str:
    return Path(name).stem.lower()


def _unique_stems(names: Sequence[str]) -> dict[str, int]:
    stems = [_stem(name) for name in names]
    return {stem: i for i, stem in enumerate(stems) if stems.count(stem) == 1}


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown}, …" if len(names) > 3 else shown
