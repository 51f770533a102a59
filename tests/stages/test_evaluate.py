"""The stage on a scene whose truth is exact: two balls, seen by a ring of cameras.

The world frame of the reconstruction is the truth's, shrunk, turned and moved.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from pipeline.errors import InputError
from pipeline.formats.case import load_case
from pipeline.formats.idr import IdrCameras, make_scale_mat, save_idr_cameras
from pipeline.formats.matches import ViewMatches, save_matches
from pipeline.formats.views import ViewRecord, save_views
from pipeline.geometry.cameras import project
from pipeline.geometry.similarity import Similarity
from pipeline.imaging.records import IngestRecord, PhotoRecord, save_ingest
from pipeline.metrics.config import EvaluateConfig
from pipeline.porf.config import TrainConfig
from pipeline.porf.trainer import train
from stages.base import StageContext
from stages.registry import STAGES
from tests.surface.analytic_scene import CENTRES, HEIGHT, RADII, WIDTH, K, ring, write_scene

VIEWS = 8
TO_WORLD = Similarity(0.25, Rotation.from_euler("xyz", [0.3, 0.2, 1.0]).as_matrix(), np.ones(3))
CONFIG = EvaluateConfig(views=2, max_side_px=40, rays_per_view=2000, spacing=0.03)
TINY_TRAINING = TrainConfig.model_validate(
    {
        "steps": 3,
        "rays": 64,
        "pose": {"model": "fixed"},
        "epipolar": {"steps": 0},
        "grid": {
            "resolutions": [8, 16],
            "log2_entries": 10,
            "hidden_width": 16,
            "samples": 8,
            "uniform_samples": 3,
            "color_samples": 8,
            "proposals": 16,
            "cache_resolution": 16,
            "background_resolutions": [8],
            "background_log2_entries": 9,
        },
    }
)


def _true_mesh() -> trimesh.Trimesh:
    balls = [
        trimesh.creation.icosphere(4, radius=float(r)).apply_translation(c.numpy())
        for c, r in zip(CENTRES, RADII, strict=True)
    ]
    return trimesh.util.concatenate(balls)


def _matches(c2w: np.ndarray) -> list[ViewMatches]:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(150, 3))
    points = TO_WORLD.apply_points(0.4 * points / np.linalg.norm(points, axis=1, keepdims=True))
    px = [project(K, pose, points)[0] for pose in c2w]
    views = []
    for ref in range(VIEWS):
        sources = [(ref + 1) % VIEWS, (ref + 2) % VIEWS]
        rows = [np.hstack([px[ref], px[src]]) for src in sources]
        views.append(ViewMatches(sources, rows, [np.arange(150) % 8 == 0] * 2))
    return views


@dataclass
class Case:
    """Artifacts of the stages before, and the truth."""

    root: Path

    def evaluate(self, tmp_path: Path, mesh: trimesh.Trimesh | None = None, **external: Path):
        """Run the stage, perhaps with another reconstructed mesh; (verdict, metrics, out)."""
        inputs = {name: self.root / name for name in STAGES["evaluate"].inputs}
        if mesh is not None:
            inputs["mesh"] = tmp_path / "mesh"
            inputs["mesh"].mkdir()
            mesh.export(inputs["mesh"] / "mesh.ply")
        out = tmp_path / "out"
        out.mkdir()
        STAGES["evaluate"].check(external, CONFIG)
        verdict = STAGES["evaluate"].run(StageContext(inputs, external, CONFIG, out, tmp_path))
        return verdict, json.loads((out / "metrics.json").read_text()), out

    @property
    def truth(self) -> dict[str, Path]:
        return {
            "ground_truth": self.root / "truth/cameras.npz",
            "ground_truth_mesh": self.root / "truth/mesh_gt.ply",
        }


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Case:
    root = tmp_path_factory.mktemp("case")
    truth_c2w = ring(VIEWS, height=1.0, radius=2.0)
    world_c2w = TO_WORLD.apply_c2w(truth_c2w)
    intrinsics = np.tile(K, (VIEWS, 1, 1))
    centre = TO_WORLD.apply_points(np.zeros((1, 3)))[0]
    world = IdrCameras(intrinsics, world_c2w, make_scale_mat(centre, 0.25))
    for name in (*STAGES["evaluate"].inputs, "truth"):
        (root / name).mkdir()
    write_scene(root / "scene", truth_c2w)
    save_idr_cameras(root / "scene/cameras_colmap.npz", world)
    names = [f"photo_{i}.jpg" for i in range(VIEWS)]
    views = [ViewRecord(index=i, name=n, registered=True) for i, n in enumerate(names)]
    views.append(ViewRecord(index=None, name="photo_9.jpg", registered=False, reason="blurred"))
    save_views(root / "scene/views.json", views)
    photos = [
        PhotoRecord(name=v.name, used=True, width=WIDTH, height=HEIGHT, file=v.name) for v in views
    ]
    save_ingest(root / "ingest/ingest.json", IngestRecord(photos=photos))
    save_matches(root / "matches/colmap_matches", _matches(world_c2w))
    train(load_case(root / "scene", root / "matches"), TINY_TRAINING, root / "train", root / "work")
    true = _true_mesh()
    true.export(root / "truth/mesh_gt.ply")
    true.vertices = TO_WORLD.apply_points(true.vertices)
    true.export(root / "mesh/mesh.ply")
    # The truth lists the unregistered photo, too, and in another order.
    order = [3, 8, 0, 1, 2, 7, 6, 5, 4]
    all_c2w = np.concatenate([truth_c2w, np.eye(4)[None]])[order]
    save_idr_cameras(
        root / "truth/cameras.npz",
        IdrCameras(np.tile(K, (VIEWS + 1, 1, 1)), all_c2w, np.eye(4)),
        unit="m",
    )
    listed = json.dumps([[*names, "photo_9.jpg"][i] for i in order])
    (root / "truth/image_names.json").write_text(listed)
    return Case(root)


def _values(metrics) -> dict[str, float]:
    return {metric["name"]: metric["value"] for metric in metrics["metrics"]}


@pytest.fixture(scope="module")
def exact(case, tmp_path_factory):
    return case.evaluate(tmp_path_factory.mktemp("exact"), **case.truth)


def test_exact_cameras_and_mesh_have_no_error(exact):
    verdict, metrics, _ = exact
    values = _values(metrics)
    assert verdict.status == "ok", verdict.reasons
    for who in ("refined", "sfm"):
        assert values[f"rotation_max_{who}"] < 1e-4
        assert values[f"translation_max_{who}"] < 1e-6
        assert values[f"heldout_epipolar_median_{who}"] < 1e-3
    assert values["chamfer_of_radius"] < 1e-3
    assert values["f_score"] == 100.0
    assert values["surface_missed"] == 0.0
    assert values["object_radius"] == pytest.approx(0.581, abs=0.002)


def test_every_number_says_what_it_is(exact):
    _, metrics, _ = exact
    names = [metric["name"] for metric in metrics["metrics"]]
    assert len(set(names)) == len(names)
    for metric in metrics["metrics"]:
        assert set(metric) == {"name", "value", "unit", "meaning", "protocol"}
        assert len(metric["meaning"].split()) > 4 and metric["protocol"]
    units = {metric["name"]: metric["unit"] for metric in metrics["metrics"]}
    assert units["chamfer"] == units["translation_mean_refined"] == "m"
    assert units["rotation_mean_refined"] == "deg"
    assert units["chamfer_of_radius"] == "% of object radius"


def test_the_alignment_is_stored_beside_the_scores(exact):
    alignment = exact[1]["alignment"]
    back = TO_WORLD.inverse()
    assert alignment["scale"] == pytest.approx(4.0, rel=1e-6)
    assert np.allclose(alignment["rotation"], back.rotation, atol=1e-6)
    assert np.allclose(alignment["translation"], back.translation, atol=1e-5)
    assert alignment["pairs"] == VIEWS


def test_renders_lie_beside_their_photos(exact):
    _, metrics, out = exact
    rendered = [row for row in metrics["per_view"] if "psnr_db" in row]
    assert len(rendered) == 2
    assert {row["name"] for row in metrics["per_view"]} == {f"photo_{i}.jpg" for i in range(VIEWS)}
    for row in rendered:
        for kind in ("photo", "render", "normal", "error"):
            with Image.open(out / f"renders/{row['index']:03d}_{kind}.png") as picture:
                assert picture.size == (40, 30)
    expected = np.mean([row["psnr_db"] for row in rendered])
    assert _values(metrics)["psnr_mean"] == pytest.approx(expected)


def test_wrong_cameras_and_a_shifted_mesh_are_measured(case, tmp_path):
    mesh = trimesh.load(case.root / "mesh/mesh.ply", process=False)
    mesh.vertices = mesh.vertices + TO_WORLD.scale * TO_WORLD.rotation @ np.array([0, 0, 0.02])
    verdict, metrics, _ = case.evaluate(tmp_path, mesh, **case.truth)
    values = _values(metrics)
    radius = values["object_radius"]
    # A ball shifted by d is off by |d·n|: between 0 and d, more than a fourth of it on average.
    assert 0.25 * 0.02 < values["chamfer"] < 0.02
    assert values["chamfer_of_radius"] == pytest.approx(100 * values["chamfer"] / radius)
    assert values["f_score"] < 70
    assert verdict.figures["chamfer_percent_of_radius"] == pytest.approx(
        values["chamfer_of_radius"], abs=1e-3
    )


def test_without_truth_there_are_measures_too(case, tmp_path):
    verdict, metrics, _ = case.evaluate(tmp_path)
    values = _values(metrics)
    assert {"heldout_epipolar_median_refined", "psnr_mean"} <= values.keys()
    assert not [name for name in values if name.startswith(("rotation", "chamfer"))]
    assert metrics["alignment"] is None
    assert verdict.status == "ok"
    assert any("no ground truth" in note for note in metrics["notes"])


def test_a_true_mesh_without_cameras_is_a_warning(case, tmp_path):
    only_mesh = {"ground_truth_mesh": case.truth["ground_truth_mesh"]}
    verdict, metrics, _ = case.evaluate(tmp_path, **only_mesh)
    assert verdict.status == "warn"
    assert "--ground-truth" in verdict.reasons[0]
    assert "no surface distance is given" in verdict.reasons[1], "the frames do not overlap"
    assert "chamfer" not in _values(metrics) and metrics["alignment"] is None
    assert _values(metrics)["seen_by_three"] > 0, "the rest of the evaluation stands"


def _truth_with(case, folder: Path, names: list[str] | None, step: int = 1) -> dict[str, Path]:
    c2w = ring(VIEWS, height=1.0, radius=2.0)
    c2w = np.roll(c2w, step, axis=0)
    save_idr_cameras(folder / "cameras.npz", IdrCameras(np.tile(K, (VIEWS, 1, 1)), c2w, np.eye(4)))
    if names is not None:
        (folder / "image_names.json").write_text(json.dumps(names))
    return {"ground_truth": folder / "cameras.npz"}


def test_truth_that_does_not_match_is_refused(case, tmp_path):
    (tmp_path / "truth").mkdir()
    other = _truth_with(case, tmp_path / "truth", [f"other_{i}.jpg" for i in range(VIEWS)])
    with pytest.raises(InputError, match="fits only 0 of 8"):
        case.evaluate(tmp_path, **other)


def test_nameless_truth_of_another_count_is_refused(case, tmp_path):
    (tmp_path / "truth").mkdir()
    nameless = _truth_with(case, tmp_path / "truth", None)
    with pytest.raises(InputError, match="8 cameras for 9 photos"):
        case.evaluate(tmp_path, **nameless)


def test_truth_in_another_order_is_a_warning(case, tmp_path):
    """A mistake in the order of a ring is a rotation of the world and fits; a swap does not."""
    (tmp_path / "truth").mkdir()
    swapped = [f"photo_{i}.jpg" for i in (4, 1, 2, 3, 0, 5, 7, 6)]
    wrong = _truth_with(case, tmp_path / "truth", swapped, step=0)
    verdict, _, _ = case.evaluate(tmp_path, **wrong)
    assert verdict.status == "warn"
    assert "another order" in verdict.reasons[0]


def test_bad_truth_is_refused_before_anything_runs(case, tmp_path):
    millimetres = _true_mesh()
    millimetres.apply_scale(1000)
    millimetres.export(tmp_path / "mm.ply")
    with pytest.raises(InputError, match="metres and millimetres"):
        STAGES["evaluate"].check({**case.truth, "ground_truth_mesh": tmp_path / "mm.ply"}, CONFIG)
    (tmp_path / "empty.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.npz"):
        STAGES["evaluate"].check({"ground_truth": tmp_path / "empty.npz"}, CONFIG)
    STAGES["evaluate"].check(case.truth, CONFIG)
    STAGES["evaluate"].check({}, CONFIG)
