import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.formats.matches import ViewMatches
from pipeline.geometry.cameras import look_at, project
from pipeline.metrics.heldout import heldout_epipolar

K = np.tile(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]), (3, 1, 1))


@pytest.fixture
def c2w():
    centres = [np.array([3 * np.cos(a), 3 * np.sin(a), 1.0]) for a in (0.0, 0.3, 0.7)]
    return np.stack([look_at(c, np.zeros(3), np.array([0, 0, 1.0])) for c in centres])


def _matches(c2w, both_sides: bool) -> list[ViewMatches]:
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3))
    seen = [project(K[i], c2w[i], points)[0] for i in range(3)]
    heldout = np.arange(200) % 10 == 0
    views = []
    for ref in range(3):
        sources = [src for src in range(3) if src > ref or (both_sides and src != ref)]
        rows = [np.hstack([seen[ref], seen[src]]) for src in sources]
        views.append(ViewMatches(sources, rows, [heldout] * len(sources)))
    return views


@pytest.mark.parametrize("both_sides", [True, False])
def test_exact_cameras_explain_exact_matches(c2w, both_sides):
    summary = heldout_epipolar(_matches(c2w, both_sides), K, c2w)
    assert summary.matches == 3 * 20, "each pair once, held-out rows only"
    assert summary.median_px < 1e-6
    assert summary.inlier_share == 1.0


def test_turned_cameras_explain_them_worse(c2w):
    def error(angle_deg):
        wrong = c2w.copy()
        turn = Rotation.from_euler("x", angle_deg, degrees=True).as_matrix()
        wrong[1, :3, :3] = wrong[1, :3, :3] @ turn
        return heldout_epipolar(_matches(c2w, True), K, wrong).inlier_mean_px

    assert error(0.0) < error(0.1) < error(0.3)
    assert error(0.1) == pytest.approx(np.deg2rad(0.1) * 500 * np.sqrt(2) * 2 / 3, rel=0.3)


def test_only_marked_matches_count(c2w):
    views = _matches(c2w, True)
    spoilt = [
        ViewMatches(
            v.sources,
            [
                np.where(h[:, None], m, m + 300)
                for m, h in zip(v.matches_px, v.heldout, strict=True)
            ],
            v.heldout,
        )
        for v in views
    ]
    assert heldout_epipolar(spoilt, K, c2w).median_px < 1e-6
    unmarked = [
        ViewMatches(v.sources, v.matches_px, [np.zeros(200, bool)] * len(v.sources)) for v in views
    ]
    assert heldout_epipolar(unmarked, K, c2w) is None
