from pathlib import Path

from pipeline.report.advice import advice
from pipeline.report.data import Photo, ReportData


def data(**parts):
    here = Path("photo.jpg")
    photos = [Photo("a.jpg", here, 0, None), Photo("b.jpg", here, 1, None)]
    return ReportData("run", **{"photos": photos, **parts})


def test_nothing_to_say_of_a_good_run():
    assert advice(data(mesh_facts={"removed": [{"step": "unseen", "area_fraction": 0.05}]})) == []


def test_lost_photos_are_named_but_not_unreadable_ones():
    here = Path("photo.jpg")
    lost = [Photo(f"lost{i}.jpg", here, None, "too few matches") for i in range(6)]
    torn = Photo("torn.jpg", None, None, "cannot be decoded")
    (text,) = advice(data(photos=[Photo("a.jpg", here, 0, None), *lost, torn]))
    assert "lost0.jpg, lost1.jpg, lost2.jpg, lost3.jpg…" in text
    assert "torn.jpg" not in text


def test_much_unseen_surface_asks_for_more_sides():
    (text,) = advice(data(mesh_facts={"removed": [{"step": "unseen", "area_fraction": 0.31}]}))
    assert text.startswith("31% of the trained surface")
