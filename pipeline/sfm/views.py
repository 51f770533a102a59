"""The registered photos in the one order that every later stage uses."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from pipeline.formats.views import ViewRecord
from pipeline.imaging.records import IngestRecord, PhotoRecord
from pipeline.sfm.colmap import c2w_of


@dataclass(frozen=True)
class RegisteredView:
    """One registered photo.

    Attributes:
        index: position among the registered photos by name; `image/%03d.png`.
        photo: its ingest record.
        image_id: COLMAP's id, which has gaps and another order: never an index.
        camera: distorted camera of the model, COLMAP's pixel convention.
        c2w: (4, 4) camera-to-world in the model's frame.
    """

    index: int
    photo: PhotoRecord
    image_id: int
    camera: pycolmap.Camera
    c2w: NDArray[np.float64]


def load_model(sfm_dir: Path) -> pycolmap.Reconstruction:
    """The chosen model of stage `sfm`."""
    return pycolmap.Reconstruction(str(sfm_dir / "sparse"))


def registered_views(model: pycolmap.Reconstruction, ingest: IngestRecord) -> list[RegisteredView]:
    """Registered photos in the order of the ingest record, which is by name."""
    image_ids = {model.image(i).name: i for i in model.reg_image_ids()}
    views: list[RegisteredView] = []
    for photo in ingest.used:
        image_id = image_ids.get(Path(photo.file or "").name)
        if image_id is None:
            continue
        image = model.image(image_id)
        views.append(RegisteredView(len(views), photo, image_id, image.camera, c2w_of(image)))
    return views


def view_records(
    ingest: IngestRecord, views: list[RegisteredView], reasons: dict[str, str]
) -> list[ViewRecord]:
    """One record a photo for `views.json`.

    Args:
        reasons: why a usable photo was not registered, by photo name.
    """
    indices = {view.photo.name: view.index for view in views}
    records = []
    for photo in ingest.photos:
        index = indices.get(photo.name)
        reason = None
        if index is None:
            reason = photo.reason or reasons.get(photo.name, "not registered")
        records.append(
            ViewRecord(index=index, name=photo.name, registered=index is not None, reason=reason)
        )
    return records


def unregistered_reasons(sfm_dir: Path) -> dict[str, str]:
    """Photo name → reason, from `sfm.json`."""
    report = json.loads((sfm_dir / "sfm.json").read_text())
    return {entry["name"]: entry["reason"] for entry in report["unregistered"]}
