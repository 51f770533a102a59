"""The network with random weights: its properties, not its taste."""

import numpy as np
import pytest
import torch

from pipeline.errors import InputError
from pipeline.metrics.lpips import BACKBONE_FILE, HEADS_FILE, find_lpips

SHAPES = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}


def _write(folder):
    generator = torch.Generator().manual_seed(0)
    backbone, heads = {}, {}
    for i, (place, (out, inputs, kernel)) in enumerate(SHAPES.items()):
        shape = (out, inputs, kernel, kernel)
        backbone[f"features.{place}.weight"] = 0.05 * torch.randn(shape, generator=generator)
        backbone[f"features.{place}.bias"] = torch.zeros(out)
        heads[f"lin{i}.model.1.weight"] = torch.rand((1, out, 1, 1), generator=generator)
    torch.save(backbone, folder / BACKBONE_FILE)
    torch.save(heads, folder / HEADS_FILE)


def test_without_weights_there_is_none(tmp_path):
    assert find_lpips(tmp_path) is None


def test_distance_grows_with_the_difference(tmp_path):
    _write(tmp_path)
    network = find_lpips(tmp_path)
    rng = np.random.default_rng(0)
    a = rng.integers(0, 255, size=(64, 80, 3), dtype=np.uint8)
    noise = rng.normal(size=a.shape)
    near, far = (np.clip(a + s * noise, 0, 255).astype(np.uint8) for s in (5, 60))
    assert network(a, a) == 0
    assert 0 < network(a, near) < network(a, far)
    assert network(a, far) == pytest.approx(network(far, a))


def test_other_files_of_that_name_are_refused(tmp_path):
    for name in (BACKBONE_FILE, HEADS_FILE):
        torch.save({"weights": torch.zeros(1)}, tmp_path / name)
    with pytest.raises(InputError, match="damaged"):
        find_lpips(tmp_path)
