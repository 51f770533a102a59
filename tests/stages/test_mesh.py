"""The stage on a real, if hardly trained, model: its surface is still near the first sphere."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from pipeline.errors import InputError
from pipeline.formats.case import load_case
from pipeline.formats.idr import IdrCameras, make_scale_mat, save_idr_cameras, to_world
from pipeline.formats.matches import ViewMatches, save_matches
from pipeline.porf.config import TrainConfig
from pipeline.porf.trained import load_trained
from pipeline.porf.trainer import train
from pipeline.surface.config import MeshConfig
from stages.base import StageContext
from stages.registry import STAGES
from tests.porf.tiny_case import TINY_OPTIONS
from tests.surface.analytic_scene import HEIGHT, K, ring, write_scene

VIEWS = 6
SCALE_MAT = make_scale_mat(np.array([5.0, -2.0, 1.0]), 3.0)
CONFIG = MeshConfig(resolution=64, views_needed=1)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    root = tmp_path_factory.mktemp("case")
    poses = ring(VIEWS)
    write_scene(root / "scene", poses)
    cameras = IdrCameras(np.tile(K, (VIEWS, 1, 1)), to_world(poses, SCALE_MAT), SCALE_MAT)
    save_idr_cameras(root / "scene/cameras_colmap.npz", cameras)
    (root / "scene/scene.json").write_text(json.dumps({"unit": "m", "up": [0, 0, 1]}))
    np.savez(root / "scene/sparse.npz", points=np.zeros((0, 3)), colors=np.zeros((0, 3), np.uint8))
    rng = np.random.default_rng(0)
    matches = [
        ViewMatches([(i + 1) % VIEWS], [rng.uniform(0, HEIGHT, (40, 4))], [np.arange(40) < 5])
        for i in range(VIEWS)
    ]
    save_matches(root / "matches/colmap_matches", matches)
    options = {**TINY_OPTIONS, "steps": 2, "pose": {"model": "fixed"}, "epipolar": {"steps": 0}}
    case = load_case(root / "scene", root / "matches")
    train(case, TrainConfig.model_validate(options), root / "train", root / "work")
    inputs = {name: root / name for name in STAGES["mesh"].inputs}
    return StageContext(inputs, {}, CONFIG, root / "out", root / "work")


@pytest.fixture(scope="module")
def made(context):
    context.out.mkdir()
    return STAGES["mesh"].run(context), context


def test_mesh_is_the_model_s_surface_in_the_world_frame(made):
    """Where the values at the ends of a lattice edge interpolate to zero, there lies its vertex.

    The field is zero there too, but on edges through a plane of the tiny model's own grid: its
    features are straight between these planes and bend at them, and so may the field.
    """
    _, context = made
    mesh = mesh_of(context.out)
    model = load_trained(context.inputs["train"])
    normalised = (mesh.vertices - SCALE_MAT[:3, 3]) / SCALE_MAT[0, 0]
    radius = np.linalg.norm(normalised, axis=1)
    assert radius.max() <= 1.0 + 1e-6
    on_edges = normalised[radius < 0.999]  # the others are where the region cuts faces
    low, high, share = lattice_edges(on_edges, CONFIG.resolution)
    at_low, at_high, at_vertex = (distances(model, points) for points in (low, high, on_edges))
    assert np.all((at_low < 0) != (at_high < 0))
    assert np.abs((1 - share) * at_low + share * at_high).max() < 1e-5
    bent = crosses_plane(low, high, model.config.grid.resolutions)
    assert 0.1 < bent.mean() < 0.5
    assert np.abs(at_vertex[~bent]).max() < 0.0025


def lattice_edges(vertices, resolution):
    """Ends (V, 3) of the edges of the cube's lattice that vertices (V, 3) lie on; where (V,)."""
    place = (vertices + 1) * resolution / 2
    corner = np.round(place)
    axis = np.abs(place - corner).argmax(axis=1)[:, None] == np.arange(3)
    first = np.where(axis, np.floor(place), corner)
    ends = (2 * end / resolution - 1 for end in (first, first + axis))
    return *ends, (place - first)[axis]


def crosses_plane(low, high, grid_resolutions):
    """Whether a plane of a grid, at so many places along an axis, lies between points (V, 3)."""
    crossed = np.zeros(len(low), dtype=bool)
    for count in grid_resolutions:
        first, last = ((points + 1) / 2 * (count - 1) for points in (low, high))
        crossed |= (np.ceil(first + 1e-6) < last - 1e-6).any(axis=1)
    return crossed


def distances(model, points):
    return model.sdf(torch.as_tensor(points, dtype=torch.float32)).numpy()


def test_facts_are_written_with_unit_and_frame(made):
    verdict, context = made
    facts = json.loads((context.out / "mesh.json").read_text())
    mesh = mesh_of(context.out)
    assert facts["faces"] == len(mesh.faces) == verdict.figures["faces"]
    assert facts["unit"] == "m"
    assert facts["frame"] == "world"
    assert facts["glb_up"] == {"direction": [0.0, 0.0, 1.0], "from": "scene"}
    assert np.allclose([facts["bounds"]["low"], facts["bounds"]["high"]], mesh.bounds, atol=1e-4)
    assert [step["step"] for step in facts["removed"]] == [
        "region",
        "unseen",
        "backdrop",
        "floaters",
    ]
    assert facts["outward_fraction"] > 0.95
    assert verdict.settings["device"] in ("cpu", "cuda")


def test_glb_stands_upright(made):
    _, context = made
    scene = trimesh.load(context.out / "mesh.glb")
    mesh = mesh_of(context.out)
    height = mesh.bounds[1][2] - mesh.bounds[0][2]
    assert scene.bounds[1][1] - scene.bounds[0][1] == pytest.approx(height, rel=1e-4)


def test_a_scene_from_elsewhere_has_images_only(made, tmp_path):
    _, context = made
    scene = tmp_path / "scene"
    scene.mkdir()
    for entry in context.inputs["scene"].iterdir():
        (scene / entry.name).symlink_to(entry)
    (scene / "scene.json").unlink()
    (scene / "sparse.npz").unlink()
    out = tmp_path / "out"
    out.mkdir()
    STAGES["mesh"].run(replace(context, inputs={**context.inputs, "scene": scene}, out=out))
    facts = json.loads((out / "mesh.json").read_text())
    assert facts["glb_up"]["from"] == "cameras"
    assert np.allclose(facts["glb_up"]["direction"], [0, 0, 1], atol=1e-6)


def test_threshold_and_obj_have_an_effect(made, tmp_path):
    _, context = made
    config = CONFIG.model_copy(update={"threshold": 0.05, "obj": True})
    STAGES["mesh"].run(replace(context, config=config, out=tmp_path))
    normalised = (mesh_of(tmp_path).vertices - SCALE_MAT[:3, 3]) / SCALE_MAT[0, 0]
    at_vertex = distances(load_trained(context.inputs["train"]), normalised)
    assert np.median(at_vertex) == pytest.approx(0.05, abs=1e-3)
    assert len(trimesh.load(tmp_path / "mesh.obj", process=False).faces) == len(
        mesh_of(tmp_path).faces
    )
    assert not (context.out / "mesh.obj").exists()


def mesh_of(folder):
    return trimesh.load(folder / "mesh.ply", process=False)


def test_same_inputs_give_the_same_files(made, tmp_path):
    _, context = made
    STAGES["mesh"].run(replace(context, out=tmp_path))
    for name in ("mesh.ply", "mesh.glb", "mesh.json"):
        assert (tmp_path / name).read_bytes() == (context.out / name).read_bytes()


def test_scene_and_training_of_different_sets_are_refused(made, tmp_path):
    _, context = made
    write_scene(tmp_path / "scene", ring(VIEWS - 1))
    (tmp_path / "scene/scene.json").write_text("{}")
    other = {**context.inputs, "scene": tmp_path / "scene"}
    with pytest.raises(InputError, match="does not fit"):
        STAGES["mesh"].run(replace(context, inputs=other, out=tmp_path))
