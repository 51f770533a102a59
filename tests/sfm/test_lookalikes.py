"""Look-alikes are told from true pairs, and nothing is claimed where they cannot be."""

import json
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.formats.idr import load_idr_cameras
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.similarity import umeyama
from pipeline.sfm.lookalikes import (
    agreed_rotations,
    average_rotations,
    difference_deg,
    misfit_deg,
    rarity_coverage,
)
from pipeline.sfm.twoview import TwoViewTable, VerifiedPair
from tests.stages.photo_run import run_stage

COUNT = 24


def _ring() -> NDArray[np.float64]:
    angle = np.linspace(0, 2 * np.pi, COUNT, endpoint=False)
    turns = Rotation.from_rotvec(angle[:, None] * np.array([0.0, 1.0, 0.0]))
    return (Rotation.from_rotvec([0.3, 0, 0]) * turns).as_matrix()


def _pairs(
    rotations: NDArray, rng: np.random.Generator, false_share: float
) -> tuple[NDArray, NDArray, NDArray, NDArray]:
    """Neighbours up to four steps apart with a degree of noise; some are wrong, half of those by
    the half turn of a symmetric object."""
    edges = np.array([(i, (i + s) % COUNT) for i in range(COUNT) for s in (1, 2, 3, 4)])
    noise = Rotation.from_rotvec(np.radians(rng.normal(0, 1, (len(edges), 3)))).as_matrix()
    relative = noise @ rotations[edges[:, 1]] @ np.swapaxes(rotations[edges[:, 0]], 1, 2)
    false = rng.random(len(edges)) < false_share
    half_turn = Rotation.from_rotvec([0, np.pi, 0]).as_matrix()
    for n in np.flatnonzero(false):
        relative[n] = (
            half_turn @ relative[n] if n % 2 else Rotation.random(random_state=n).as_matrix()
        )
    weights = np.where(false, rng.uniform(0.1, 0.4, len(edges)), rng.uniform(0.3, 0.8, len(edges)))
    return edges, relative, weights, false


def test_averaging_survives_wrong_pairs() -> None:
    truth = _ring()
    edges, relative, weights, false = _pairs(truth, np.random.default_rng(0), 0.25)
    found = average_rotations(edges, relative, weights, COUNT)
    assert difference_deg(found, truth) < 1.0
    misfit = misfit_deg(found, edges, relative)
    assert misfit[~false].max() < 6
    assert misfit[false].min() > 6


def test_selections_that_agree_are_believed() -> None:
    truth = _ring()
    edges, relative, weights, _ = _pairs(truth, np.random.default_rng(1), 0.2)
    found = agreed_rotations(edges, relative, weights, COUNT)
    assert found is not None
    assert difference_deg(found, truth) < 1.5


def test_selections_that_differ_are_not_believed() -> None:
    edges, relative, weights, _ = _pairs(_ring(), np.random.default_rng(2), 0.9)
    assert agreed_rotations(edges, relative, weights, COUNT) is None


def test_pairs_that_explain_rare_places_count_more() -> None:
    """Photos 1 and 2 share a place that nothing else has, 1 and 3 the print on every side."""
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=100, height=80, params=[90.0, 50, 40])
    points = np.array([[5.0, 5], [95, 5], [5, 75], [95, 75]])  # four cells: 0 and 1 are repeated
    print_only, rare = np.array([[0, 0], [1, 1]]), np.array([[2, 2], [3, 3]])
    table = TwoViewTable(
        dict.fromkeys((1, 2, 3, 4), points),
        [
            VerifiedPair(1, 2, rare),
            VerifiedPair(1, 3, print_only),
            VerifiedPair(1, 4, print_only),
            VerifiedPair(2, 3, print_only),
            VerifiedPair(2, 4, print_only),
            VerifiedPair(3, 4, print_only),
        ],
    )
    coverage = rarity_coverage(table, dict.fromkeys((1, 2, 3, 4), camera))
    # of photo 1: print cells weigh 1/2 each, rare ones 1
    assert coverage[0] == pytest.approx(2 / 3)
    assert coverage[1] == pytest.approx(np.sqrt(1 / 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["render_milk", "render_popcorn"])
def test_boxes_with_equal_sides_are_solved(tmp_path: Path, shared: Path, name: str) -> None:
    data = shared / "data" / name
    artifacts = tmp_path / "run"
    run_stage("ingest", artifacts, {"photos": data / "photos"})
    with pytest.raises(InputError, match="contradict them"):
        run_stage("sfm", artifacts, options={"on_contradiction": "refuse"}, out_name="refused")
    verdict = run_stage("sfm", artifacts)
    assert any("look alike" in reason for reason in verdict.reasons)
    run_stage("scene", artifacts)
    run_stage("matches", artifacts)
    found = load_idr_cameras(artifacts / "scene" / "cameras_colmap.npz")
    truth = load_idr_cameras(data / "cameras.npz")
    records = json.loads((artifacts / "scene" / "views.json").read_text())
    order = json.loads((data / "image_names.json").read_text())
    true_c2w = truth.c2w[[order.index(r["name"]) for r in records if r["registered"]]]
    assert len(found) == 24
    aligned = umeyama(found.c2w[:, :3, 3], true_c2w[:, :3, 3]).apply_c2w(found.c2w)
    assert rotation_angles_deg(aligned[:, :3, :3], true_c2w[:, :3, :3]).mean() < 0.2
