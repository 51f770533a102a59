from pathlib import Path

import numpy as np

from pipeline.report.advice import advice
from pipeline.report.data import Photo, ReportData
from pipeline.report.facts import sfm_facts


def data(**parts):
    here = Path("photo.jpg")
    photos = [Photo("a.jpg", here, 0, None), Photo("b.jpg", here, 1, None)]
    return ReportData("run", **{"photos": photos, **parts})


def test_nothing_to_say_of_a_good_run():
    underside = {"removed": [{"step": "unseen", "area_fraction": 0.31}], "missed_fraction": 0.02}
    assert advice(data(mesh_facts=underside)) == []


def test_lost_photos_are_named_but_not_unreadable_ones():
    here = Path("photo.jpg")
    lost = [Photo(f"lost{i}.jpg", here, None, "too few matches") for i in range(6)]
    torn = Photo("torn.jpg", None, None, "cannot be decoded")
    (text,) = advice(data(photos=[Photo("a.jpg", here, 0, None), *lost, torn]))
    assert "lost0.jpg, lost1.jpg, lost2.jpg, lost3.jpg…" in text
    assert "torn.jpg" not in text


def test_much_unseen_surface_asks_for_more_sides():
    (text,) = advice(data(mesh_facts={"missed_fraction": 0.31}))
    assert text.startswith("31% of the surface, its underside not counted")


def _measured(**values):
    metrics = [{"name": name, "value": value} for name, value in values.items()]
    return ReportData("t", metrics={"metrics": metrics})


def test_thin_coverage_and_contradicting_matches():
    assert advice(_measured(seen_by_three=95.0, heldout_epipolar_inliers_refined=99.0)) == []
    found = advice(_measured(seen_by_three=60.0, heldout_epipolar_inliers_refined=70.0))
    assert any("40% of the surface" in text for text in found)
    assert any("30% of the held-out matches" in text for text in found)


def test_photos_that_hang_on_one_other_are_named():
    counts = np.full((6, 6), 100)
    np.fill_diagonal(counts, 0)
    counts[5] = counts[:, 5] = 0
    photos = [Photo(f"{i}.jpg", None, i, None) for i in range(6)]
    (text,) = advice(ReportData("t", photos=photos, match_counts=counts))
    assert "one other photo: 5.jpg." in text


def test_places_for_more_photos_are_named():
    here = Path("photo.jpg")
    photos = [Photo("a.jpg", here, 0, None), Photo("lost.jpg", here, None, "too weak")]
    told = ["take photos between a.jpg and lost.jpg: they overlap, but too weakly"]
    (text,) = advice(data(photos=photos, sfm={"advice": told}))
    assert text == "Take photos between a.jpg and lost.jpg: they overlap, but too weakly."


def test_the_expected_rotation_error_is_told():
    views = {"a.jpg": 0.019, "b.jpg": 0.047}
    sigma = {"median_deg": 0.021, "common_deg": 0.015, "scatter_median_deg": 0.01}
    sfm = {"rotation_uncertainty": {**sigma, "views_deg": views}}
    usual, shared, worst = sfm_facts(data(sfm=sfm))
    assert (usual.value, shared.value, worst.value) == ("0.0210° (1 σ)", "0.0150°", "0.0470°")
    assert "b.jpg" in worst.name
