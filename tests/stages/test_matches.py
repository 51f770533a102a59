"""The stage on rendered photos: its matches fit the scene's cameras, and each other."""

import json

import numpy as np

from pipeline.formats.case import load_case
from pipeline.formats.matches import load_matches
from pipeline.geometry.epipolar import fundamental_matrix, symmetric_epipolar_distance_px
from tests.stages.photo_run import box_run


def test_matches_fit_the_cameras_of_the_scene() -> None:
    run = box_run()
    case = load_case(run.folder("scene"), run.folder("matches"))
    distances = []
    for i, view in enumerate(case.matches):
        for j, matches in zip(view.sources, view.matches_px, strict=True):
            F = fundamental_matrix(
                case.cameras.K[i], case.cameras.c2w[i], case.cameras.K[j], case.cameras.c2w[j]
            )
            distances.append(symmetric_epipolar_distance_px(F, matches))
    assert np.median(np.concatenate(distances)) < 0.4


def test_matches_fit_the_true_cameras_too() -> None:
    """Independent of the model: true poses, and the lens that the renderer used."""
    run = box_run()
    case = load_case(run.folder("scene"), run.folder("matches"))
    order = [run.truth.names.index(name) for name in run.names]
    c2w = run.truth.c2w[order]
    distances = []
    for i, view in enumerate(case.matches):
        for j, matches in zip(view.sources, view.matches_px, strict=True):
            F = fundamental_matrix(case.cameras.K[i], c2w[i], case.cameras.K[j], c2w[j])
            distances.append(symmetric_epipolar_distance_px(F, matches))
    assert np.median(np.concatenate(distances)) < 1.0


def test_the_summary_counts_what_is_stored() -> None:
    run = box_run()
    summary = json.loads((run.folder("matches") / "matches.json").read_text())
    views = load_matches(run.folder("matches") / "colmap_matches", 14)
    assert sum(len(m) for view in views for m in view.matches_px) == 2 * summary["matches"]
    assert sum(int(h.sum()) for view in views for h in view.heldout) == 2 * summary["heldout"]
    assert sum(len(view.sources) for view in views) == 2 * summary["pairs"]
    assert 0.05 < summary["heldout"] / summary["matches"] < 0.2
    assert summary["options"]["min_matches"] == 15
    assert summary["views_without_matches"] == []
