"""The picture of the region, `--roi`, and the refusal of regions that cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flows.cli.arguments import roi_overrides
from flows.settings import resolve
from pipeline.errors import InputError
from pipeline.geometry.cameras import look_at, pixel_rays
from pipeline.sfm.roi_picture import load_roi_scene, side_axes, sphere_outline
from tests.flows.harness import refuse
from tests.stages.photo_run import box_run, run_stage


def test_the_outline_touches_the_sphere() -> None:
    K = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
    c2w = look_at(np.array([2.0, -1, -4]), np.array([0.3, 0, 0.1]), np.array([0, -1.0, 0]))
    centre, radius = np.array([0.1, 0.2, -0.1]), 0.8
    outline = sphere_outline(K, c2w, centre, radius)
    assert outline is not None
    origins, directions = pixel_rays(K, c2w, outline)
    miss = np.linalg.norm(np.cross(directions, centre - origins), axis=1)
    np.testing.assert_allclose(miss, radius, rtol=1e-9)
    assert sphere_outline(K, c2w, c2w[:3, 3] + 0.1, radius) is None


def test_the_picture_shows_the_scene_upright(tmp_path: Path) -> None:
    scene_dir = box_run().folder("scene")
    facts = json.loads((scene_dir / "scene.json").read_text())
    axes = side_axes(load_roi_scene(scene_dir, facts))
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(axes[2], facts["up"], atol=1e-9)
    done = refuse("roi", scene_dir, "-p", tmp_path / "roi.png")
    assert done.code == 0, done.text
    assert "sparse points" in done.text
    with Image.open(tmp_path / "roi.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    pink = (np.abs(pixels - [216, 27, 96]).sum(axis=2) < 40).mean(axis=1)
    assert pink[: len(pink) // 2].sum() > 0  # the sphere from its sides
    assert pink[len(pink) // 2 :].sum() > 0  # and on the photos
    assert refuse("roi", tmp_path).code == 2


def test_a_box_becomes_the_sphere_around_it(tmp_path: Path) -> None:
    run = box_run()
    for stage in ("ingest", "sfm"):
        (tmp_path / stage).symlink_to(run.folder(stage))
    x, y, z = json.loads((run.folder("scene") / "scene.json").read_text())["center"]
    box = (x - 1, y - 2, z - 2, x + 1, y + 2, z + 2)
    run_stage("scene", tmp_path, options={"roi_box": box})
    scene = json.loads((tmp_path / "scene" / "scene.json").read_text())
    assert scene["radius"] == pytest.approx(3.0)
    np.testing.assert_allclose(scene["center"], [x, y, z], atol=1e-9)
    assert (scene["region_source"], scene["roi_box"]) == ("given", list(box))


def test_what_roi_means_as_options() -> None:
    scene = resolve("fast", None, roi_overrides("1,-2,3e-1,0.5")).scene
    assert (scene.roi_center, scene.roi_radius) == ((1.0, -2.0, 0.3), 0.5)
    scene = resolve("fast", None, roi_overrides("-1 -1 0 1 1 2")).scene
    assert scene.roi_box == (-1.0, -1.0, 0.0, 1.0, 1.0, 2.0)
    assert roi_overrides(None) == []


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", "", "1,2,3,4,5"])
def test_a_roi_of_other_numbers(text: str) -> None:
    with pytest.raises(InputError, match="expected x,y,z,radius"):
        roi_overrides(text)


def test_regions_that_cannot_be() -> None:
    for text in ("0,0,0,-1", "1,0,0,0,1,1"):
        with pytest.raises(InputError, match="scene"):
            resolve("fast", None, roi_overrides(text))
    with pytest.raises(InputError, match="not both"):
        resolve("fast", None, [*roi_overrides("0,0,0,1"), *roi_overrides("0,0,0,1,1,1")])
