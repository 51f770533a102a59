"""The reference presets say what the original's configuration says, and each option has effect."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flows.settings import preset_description, preset_names, resolve
from pipeline.formats.matches import ViewMatches
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.porf.config import TrainConfig
from pipeline.porf.epipolar import MatchTable
from pipeline.porf.gate import Gate, with_heldout_marks
from pipeline.porf.joint import JointTraining
from pipeline.porf.models import build_field, build_poses
from pipeline.porf.observations import Observations, PixelBatch, load_observations
from pipeline.porf.trained import load_trained
from pipeline.porf.trainer import train
from pipeline.progress import NullProgress
from tests.porf import textbook
from tests.porf.tiny_case import TINY_OPTIONS, VIEWS, TinyCase, write_tiny_case

REFERENCE = ("dtu_sift_porf", "dtu_sift_pose", "mobilebrick_sift_porf", "mobilebrick_sift_pose")

PUBLISHED: dict[str, Any] = {
    "field": "neus",
    "steps": 50_000,
    "rays": 512,
    "rays_from": "one_view",
    "rays_near_object": False,
    "max_image_side": 0,
    "heldout_blocks": 0,
    "color_order": "bgr",
    "color_divisor": 256,
    "use_masks": False,
    "pose.learning_rate": 5e-4,
    "pose.schedule": "constant",
    "pose.joint_start": 0,
    "pose.settle_share": 0,
    "epipolar.bundle_adjust": False,
    "epipolar.calibrate": False,
    "epipolar.steps": 0,
    "epipolar.weight": 0.1,
    "epipolar.inlier_px": 20,
    "epipolar.max_matches_per_pair": 5000,
    "epipolar.pairs_per_step": 20,
    "epipolar.pairs_from": "one_view",
    "epipolar.heldout_share": 0,
    "neus.learning_rate": 5e-4,
    "neus.warmup_steps": 500,
    "neus.final_rate": 0.05,
    "neus.cos_anneal_steps": 5000,
    "neus.coarse_samples": 64,
    "neus.importance_samples": 64,
    "neus.upsample_steps": 4,
    "neus.outside_samples": 32,
    "neus.eikonal_weight": 0.1,
    "neus.distortion_weight": 0.001,
    "neus.hidden_width": 256,
    "neus.hidden_layers": 8,
    "neus.skip_layer": 4,
    "neus.sdf_frequencies": 6,
    "neus.color_width": 256,
    "neus.color_layers": 4,
    "neus.view_frequencies": 4,
    "neus.feature_width": 256,
    "neus.initial_radius": 0.5,
    "neus.initial_variance": 0.3,
}


def value(config: Any, dotted: str) -> Any:
    for name in dotted.split("."):
        config = getattr(config, name)
    return config


def small(preset: str, **changes: Any) -> TrainConfig:
    """The preset with networks and step counts for a test; everything else as it is."""
    options = resolve(preset).train.model_dump()
    options |= {"steps": 6, "rays": 32, "log_every": 3, "device": "cpu"}
    options["neus"] |= TINY_OPTIONS["neus"]
    for name, change in changes.items():
        options[name] = {**options[name], **change} if isinstance(change, dict) else change
    return TrainConfig.model_validate(options)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    return write_tiny_case(tmp_path_factory.mktemp("case"))


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_presets_are_the_published_configuration(name: str) -> None:
    assert name in preset_names()
    assert "published" in preset_description(name)
    options = resolve(name).train
    for dotted, published in PUBLISHED.items():
        assert value(options, dotted) == published, dotted
    if name.endswith("porf"):
        assert (options.pose.model, options.pose.mode) == ("porf", "porf")
        assert (options.pose.scale, options.pose.zero_init) == (1e-2, False)
    else:
        assert options.pose.model == "learn_pose"


@pytest.mark.parametrize("name", ["dtu_sift_porf", "mobilebrick_sift_pose"])
def test_reference_presets_train(tiny: TinyCase, tmp_path: Path, name: str) -> None:
    result = train(tiny.case, small(name), tmp_path / "out", tmp_path / "work")
    assert result.accepted == "joint"
    assert result.verdict.status == "ok"
    assert result.figures["heldout_matches"] == 0
    assert result.figures["psnr_heldout_db"] is None
    assert not np.array_equal(result.cameras.c2w, tiny.case.cameras.c2w)
    assert "NaN" not in (tmp_path / "out" / "history.json").read_text()
    assert "NaN" not in (tmp_path / "out" / "train.json").read_text()


def first_rotations_deg(tiny: TinyCase, config: TrainConfig) -> float:
    given = torch.from_numpy(tiny.case.cameras.c2w_normalised).float()
    poses = build_poses(config.pose, given, torch.Generator().manual_seed(3))
    with torch.no_grad():
        return float(
            rotation_angles_deg(given[:, :3, :3].numpy(), poses()[:, :3, :3].numpy()).max()
        )


def test_first_cameras_are_the_given_ones_or_as_the_original_starts(tiny: TinyCase) -> None:
    original = small("dtu_sift_porf")
    ten_times = small("dtu_sift_porf", pose={"scale": 0.1})
    ours = small("dtu_sift_porf", pose={"zero_init": True})
    assert first_rotations_deg(tiny, ours) < 1e-3
    start = first_rotations_deg(tiny, original)
    assert 0.01 < start < 0.5
    assert first_rotations_deg(tiny, ten_times) == pytest.approx(10 * start, rel=0.05)


def observed(tiny: TinyCase, **changes: Any) -> Observations:
    config = small("dtu_sift_porf", **changes)
    return load_observations(tiny.case, config, 0, torch.device("cpu"), NullProgress())


def test_colours_as_the_original_reads_them(tiny: TinyCase) -> None:
    views, pixels = torch.tensor([0, 3]), torch.tensor([[20, 15], [4, 30]])
    ours = observed(tiny, color_order="rgb", color_divisor=255).pixels(views, pixels).rgb
    photo = torch.from_numpy(tiny.case.load_images())
    expected = torch.stack([photo[0, 15, 20], photo[3, 30, 4]]).float()
    torch.testing.assert_close(ours, expected / 255)
    original = observed(tiny).pixels(views, pixels).rgb
    torch.testing.assert_close(original, expected.flip(1) / 256)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_renders_are_rgb_whatever_the_field_learned(
    tiny: TinyCase, tmp_path: Path, order: str
) -> None:
    config = small("dtu_sift_porf", steps=1, color_order=order)
    train(tiny.case, config, tmp_path / "out", tmp_path / "work")
    model = load_trained(tmp_path / "out")
    last = list(model.field.color_field.children())[-1]
    blue = torch.tensor([0.1, 0.4, 0.9] if order == "rgb" else [0.9, 0.4, 0.1])
    last.weight_g.zero_()
    last.bias.copy_(torch.logit(blue))
    rgb = model.render(model.K[0], model.c2w[0], model.width, model.height)["rgb"]
    brightest = rgb.reshape(-1, 3)[rgb.sum(axis=2).argmax()].astype(float)
    assert brightest[2] > 50
    np.testing.assert_allclose(brightest / brightest[2], [1 / 9, 4 / 9, 1], atol=0.03)


def test_share_of_matches_that_judge_the_cameras(tiny: TinyCase) -> None:
    marked = tiny.case.matches  # an eighth is marked by the files
    plain = [ViewMatches(v.sources, v.matches_px, [m & False for m in v.heldout]) for v in marked]
    total = sum(len(m) for view in marked for m in view.matches_px)

    def heldout(matches: list[ViewMatches], share: float) -> float:
        chosen = with_heldout_marks(matches, 0, share)
        return sum(int(m.sum()) for view in chosen for m in view.heldout) / total

    assert heldout(marked, 0.1) == pytest.approx(0.125, abs=0.02)
    assert heldout(plain, 0.1) == pytest.approx(0.1, abs=0.02)
    assert heldout(plain, 0.3) == pytest.approx(0.3, abs=0.03)
    assert heldout(marked, 0) == heldout(plain, 0) == 0


def test_large_pairs_are_drawn_from_as_a_whole(tiny: TinyCase, tmp_path: Path) -> None:
    """The original draws what exceeds the limit anew at every step; nothing is cut for good."""
    seen: list[MatchTable] = []
    advance = JointTraining.advance

    def noting(self: JointTraining) -> None:
        seen.append(self.table)
        advance(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JointTraining, "advance", noting)
        for pairs_from in ("one_view", "all_views"):
            changes = {"pairs_from": pairs_from, "max_matches_per_pair": 40}
            config = small("dtu_sift_porf", steps=1, epipolar=changes)
            train(tiny.case, config, tmp_path / pairs_from, tmp_path / f"w_{pairs_from}")
    assert int(seen[0].host_counts.max()) > 100
    assert int(seen[1].host_counts.max()) == 40


@pytest.mark.parametrize("model", ["porf", "learn_pose"])
@pytest.mark.parametrize("mode", ["porf", "index_only", "pose_only"])
def test_the_trainers_step_is_the_textbooks(tiny: TinyCase, model: str, mode: str) -> None:
    """Loss and gradients of a whole step, cameras included, in float64.

    The textbook version gets the step's own draws: view, pixels, pairs, samples along the rays.
    """
    preset = "dtu_sift_porf" if model == "porf" else "dtu_sift_pose"
    config = small(preset, rays=24, pose={"mode": mode})
    joint = exact_training(tiny, config)
    joint.step = 2000
    gradients, loss, draws = textbook_step(joint)
    for parameter in parameters(joint).values():
        parameter.grad = None
    joint.generator.set_state(draws["generator"])
    joint.host_generator.set_state(draws["host_generator"])
    joint.step = 2000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joint.optimiser, "step", lambda: None)
        patch.setattr(joint.pose_optimiser, "step", lambda: None)
        joint.advance()
    assert float(joint.running[0]) == pytest.approx(loss, rel=1e-6)
    for name, parameter in parameters(joint).items():
        ours, theirs = parameter.grad, gradients[name]
        if theirs is None:
            assert ours is None or not ours.any(), name
            continue
        assert float((ours - theirs).norm()) <= 1e-6 * float(theirs.norm()) + 1e-12, name


def exact_training(tiny: TinyCase, config: TrainConfig) -> JointTraining:
    generator = torch.Generator().manual_seed(5)
    observations = load_observations(tiny.case, config, 0, torch.device("cpu"), NullProgress())
    observations = _double(observations)
    c2w = torch.from_numpy(tiny.case.cameras.c2w_normalised)
    K = torch.from_numpy(tiny.case.cameras.K)
    field = build_field(config, generator, torch.device("cpu")).double()
    field.chunk_rays = 10
    matches = with_heldout_marks(tiny.case.matches, 0, config.epipolar.heldout_share)
    table = MatchTable.from_matches(matches, max_matches_per_pair=None)
    assert not Gate(matches, K, c2w).can_decide
    poses = build_poses(config.pose, c2w, generator)
    return JointTraining(config, field, poses, observations, table, K, 9)


class _DoubleObservations(Observations):
    def pixels(self, views: torch.Tensor, xy: torch.Tensor) -> PixelBatch:
        batch = super().pixels(views, xy)
        double = {n: getattr(batch, n).double() for n in ("xy_px", "rgb", "trained")}
        return dataclasses.replace(batch, **double)


def _double(observations: Observations) -> Observations:
    fields = {**vars(observations)}
    K = observations.K.double()
    fields |= {"K": K, "K_inv": torch.linalg.inv(K)}
    return _DoubleObservations(**fields)


def parameters(joint: JointTraining) -> dict[str, torch.nn.Parameter]:
    named = {f"field.{n}": p for n, p in joint.field.named_parameters()}
    return named | {f"poses.{n}": p for n, p in joint.poses.named_parameters()}


def textbook_step(joint: JointTraining) -> tuple[dict[str, Any], float, dict[str, Any]]:
    """Gradients by name, the loss, and the states of the generators before the step's draws."""
    config, field = joint.config, joint.field
    draws = {
        "generator": joint.generator.get_state(),
        "host_generator": joint.host_generator.get_state(),
    }
    view = int(torch.randint(VIEWS, (1,), generator=joint.host_generator))
    pairs = joint.table.sample_pairs_of_view(view, joint.host_generator, 20)
    batch = joint.observations.draw(config.rays, view, joint.generator)
    c2w = joint.poses()
    xy1 = torch.cat([batch.xy_px, torch.ones_like(batch.xy_px[:, :1])], dim=1)
    in_camera = xy1 @ torch.linalg.inv(joint.observations.K[view]).T
    directions = (in_camera / in_camera.norm(dim=1, keepdim=True)) @ c2w[view, :3, :3].T
    origins = c2w[view, :3, 3].expand_as(directions)
    drawn = field.sample(origins, directions, joint.generator, field.layers())
    rays = textbook.SampledRays(origins, directions, *drawn)
    loss = textbook.photometric_loss(field, rays, batch.rgb, 2000 / 5000)
    chosen = joint.table.select(pairs)
    matches = [
        (
            int(chosen.pair_ref[i]),
            int(chosen.pair_src[i]),
            chosen.points_px[chosen.pair_of_match == i].double(),
        )
        for i in range(len(pairs))
    ]
    loss = loss + 0.1 * textbook.epipolar_loss(matches, c2w, joint.match_K, 20.0)
    loss.backward()
    gradients = {
        name: None if p.grad is None else p.grad.clone() for name, p in parameters(joint).items()
    }
    return gradients, float(loss.detach()), draws
