"""Every photo outside the model is named with the reason that applies to it."""

import numpy as np
import pycolmap
import pytest

from pipeline.imaging.records import IngestRecord, PhotoRecord
from pipeline.sfm.mapping import Mapping
from pipeline.sfm.report import unregistered
from pipeline.sfm.twoview import TwoViewTable, VerifiedPair


def _photo(number: int) -> PhotoRecord:
    return PhotoRecord(name=f"IMG_{number}.JPG", file=f"images/{number}.jpg", used=True)


def _model(numbers: list[int]) -> pycolmap.Reconstruction:
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        camera_id=1, model="SIMPLE_PINHOLE", width=600, height=400, params=[500, 300, 200]
    )
    model.add_camera_with_trivial_rig(camera)
    for number in numbers:
        image = pycolmap.Image(name=f"{number}.jpg", camera_id=1, image_id=number)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d())
    return model


def _pair(a: int, b: int) -> VerifiedPair:
    return VerifiedPair(a, b, np.zeros((20, 2), dtype=np.int64))


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (3, "only 40 features"),
        (4, "in a separate group of 3 photos"),
        (7, "no verified matches with any other photo"),
        (8, "overlaps only with photos that were not registered either"),
        (9, "overlaps with 2 registered photos, but too weakly"),
        (10, "shares no more than 12 points with any other photo: left out"),
        (11, "no camera was given for it"),
    ],
)
def test_the_reason_is_the_photos_own(number: int, reason: str) -> None:
    numbers = range(1, 12)
    mapping = Mapping([_model([1, 2]), _model([4, 5, 6])], relaxed=False)
    table = TwoViewTable({}, [_pair(1, 2), _pair(3, 8), _pair(1, 9), _pair(2, 9)])
    features = {f"{n}.jpg": 40 if n == 3 else 900 for n in numbers}
    entries = unregistered(
        IngestRecord(photos=[_photo(n) for n in numbers]),
        mapping,
        features,
        table,
        {f"{n}.jpg": n for n in numbers},
        {"10.jpg": 12},
        ["IMG_11.JPG"],
    )
    reasons = {entry["name"]: entry["reason"] for entry in entries}
    assert sorted(reasons) == sorted(f"IMG_{n}.JPG" for n in numbers if n > 2)
    assert reason in reasons[f"IMG_{number}.JPG"]
