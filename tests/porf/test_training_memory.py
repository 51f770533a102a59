"""Training with too little memory: smaller chunks, the same gradients, or a refusal."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from pipeline.errors import InputError
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.joint import JointTraining
from pipeline.porf.neus_model import NeusModel
from pipeline.porf.rays import RayBatch
from pipeline.porf.trainer import train
from pipeline.store.manifest import Manifest, Recipe
from pipeline.store.store import Store
from stages.process import StageRequest, perform
from tests.porf.test_robust_training import Said, options
from tests.porf.tiny_case import TINY_OPTIONS, TinyCase, write_tiny_case


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyCase:
    return write_tiny_case(tmp_path_factory.mktemp("case"))


def little_memory(patch: pytest.MonkeyPatch, rays: int, error: Exception) -> None:
    """Let both fields fail whenever more than `rays` rays are differentiated at once."""
    render, shaded = GridModel.render, NeusModel._shaded

    def grid(self: GridModel, batch: RayBatch, generator: Any) -> Any:
        if torch.is_grad_enabled() and len(batch.origins) > rays:
            raise error
        return render(self, batch, generator)

    def neus(self: NeusModel, chunk: Any, layers: Any) -> Any:
        if torch.is_grad_enabled() and len(chunk.origins) > rays:
            raise error
        return shaded(self, chunk, layers)

    patch.setattr(GridModel, "render", grid)
    patch.setattr(NeusModel, "_shaded", neus)


class TestMemory:
    @pytest.mark.parametrize(
        ("field", "rays", "left", "error"),
        [
            ("grid", 20, 16, torch.OutOfMemoryError("CUDA out of memory")),
            ("neus", 5, 4, RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")),
        ],
    )
    def test_running_out_halves_the_chunk_and_goes_on(
        self, tiny: TinyCase, tmp_path: Path, field: str, rays: int, left: int, error: Exception
    ) -> None:
        config = options(field=field, steps=12, log_every=4, pose={"joint_start": 0.25})
        whole = train(tiny.case, config, tmp_path / "whole", tmp_path / "work_whole")
        said = Said()
        with pytest.MonkeyPatch.context() as patch:
            little_memory(patch, rays, error)
            result = train(tiny.case, config, tmp_path / "out", tmp_path / "work", progress=said)
        settings = result.verdict.settings
        assert settings["chunk_rays"] == left
        assert settings["memory_ran_out_at_step"] == 0
        assert any("memory ran out at step 0" in line for line in said.lines)
        assert "chunk_rays" not in whole.verdict.settings
        if field == "neus":  # the same draws, summed in another order
            np.testing.assert_allclose(result.history, whole.history, rtol=2e-3, atol=1e-4)
        else:  # the pieces draw their own samples along the rays
            np.testing.assert_allclose(result.history, whole.history, rtol=0.1, atol=1e-3)

    def test_the_manifest_tells_it(self, tiny: TinyCase, tmp_path: Path) -> None:
        recipe = Recipe(stage="train", version=1, options={}, seed=0, inputs={}, external={})
        store = Store(tmp_path)
        with store.building("train", recipe.key) as out, pytest.MonkeyPatch.context() as patch:
            little_memory(patch, 70, torch.OutOfMemoryError())
            request = StageRequest(
                stage="train",
                options=options(steps=2).model_dump(mode="json"),
                seed=0,
                inputs={"scene": tiny.folder, "matches": tiny.folder},
                external={},
                out=out,
                work=tmp_path / "work",
                outcome=tmp_path / "outcome.json",
            )
            outcome = perform(request)
            store.publish(out, Manifest(recipe=recipe, key=recipe.key, files={}, **outcome))
        published = store.artifact("train", recipe.key) / "manifest.json"
        settings = json.loads(published.read_text())["verdict"]["settings"]
        assert (settings["chunk_rays"], settings["memory_ran_out_at_step"]) == (64, 0)

    def test_masks_too(self, tmp_path: Path) -> None:
        case = write_tiny_case(tmp_path / "case", masks=True).case
        config = options(field="neus", steps=3, log_every=1)
        with pytest.MonkeyPatch.context() as patch:
            little_memory(patch, 5, torch.OutOfMemoryError())
            result = train(case, config, tmp_path / "out", tmp_path / "work")
        assert result.verdict.settings["chunk_rays"] == 4

    def test_pieces_give_the_gradients_of_the_whole(self, tiny: TinyCase, tmp_path: Path) -> None:
        """Without random draws along the rays; the regularisers are left out: means of means."""
        grid = {**TINY_OPTIONS["grid"], "eikonal_weight": 0, "anchor_steps": 0, "anchor_weight": 0}
        config = options(
            steps=1, heldout_blocks=0, grid=grid, pose={"joint_start": 0, "zero_init": False}
        )
        gradients = []
        for rays in (10_000, 50):

            def noting(self: JointTraining, own: list[Any] = gradients) -> None:
                own.append(
                    [
                        p.grad.clone()
                        for p in [*self.field.parameters(), *self.poses.parameters()]
                        if p.grad is not None
                    ]
                )

            with pytest.MonkeyPatch.context() as patch:
                little_memory(patch, rays, torch.OutOfMemoryError())
                limited = GridModel.render
                patch.setattr(GridModel, "render", lambda s, b, g, r=limited: r(s, b, None))
                patch.setattr(JointTraining, "_accumulate", lambda s, *a, n=noting: n(s))
                work = tmp_path / str(rays)
                with pytest.raises(Exception):  # noqa: B017  (no figures were gathered)
                    patch.setattr(JointTraining, "take_figures", lambda *a: 1 / 0)
                    train(tiny.case, config, work / "out", work)
        assert len(gradients[0]) == len(gradients[1]) > 6
        for one, pieces in zip(*gradients, strict=True):
            torch.testing.assert_close(pieces, one, rtol=1e-3, atol=1e-6)

    @pytest.mark.parametrize("field", ["grid", "neus"])
    def test_nothing_small_enough_is_refused(
        self, tiny: TinyCase, tmp_path: Path, field: str
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            little_memory(patch, 0, torch.OutOfMemoryError())
            with pytest.raises(InputError, match="nothing could be made smaller") as refused:
                train(tiny.case, options(field=field), tmp_path / "out", tmp_path / "work")
        assert "train.max_image_side" in (refused.value.hint or "")

    def test_other_errors_are_not_taken_for_it(self, tiny: TinyCase, tmp_path: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            little_memory(patch, 20, RuntimeError("a bug"))
            with pytest.raises(RuntimeError, match="a bug"):
                train(tiny.case, options(), tmp_path / "out", tmp_path / "work")

    def test_images_that_do_not_fit_are_refused_with_a_size_that_does(
        self, tiny: TinyCase, tmp_path: Path
    ) -> None:
        free = 30_000  # bytes; the images take 48 × 36 × 3 × 8 = 41,472
        with pytest.MonkeyPatch.context() as patch:
            memory = psutil.virtual_memory()._replace(available=free)
            patch.setattr(psutil, "virtual_memory", lambda: memory)
            with pytest.raises(InputError, match="8 images of 48×36 pixels") as refused:
                train(tiny.case, options(), tmp_path / "out", tmp_path / "work")
            side = int(str(refused.value.hint).rsplit("=", 1)[1])
            assert 20 < side < 48
            config = options(steps=2, max_image_side=side)
            result = train(tiny.case, config, tmp_path / "out", tmp_path / "work")
        assert result.figures["training_width_px"] == side
