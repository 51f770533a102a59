"""Learned features and matchers are chosen, and refused where this installation lacks them."""

import pycolmap
import pytest

from pipeline.errors import InputError
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.features import colmap_device, extraction_options
from pipeline.sfm.matching import matching_options, require_matcher


@pytest.mark.parametrize(
    ("features", "matcher", "name"),
    [
        ("sift", "brute_force", "SIFT_BRUTEFORCE"),
        ("sift", "lightglue", "SIFT_LIGHTGLUE"),
        ("aliked", "brute_force", "ALIKED_BRUTEFORCE"),
        ("aliked", "lightglue", "ALIKED_LIGHTGLUE"),
    ],
)
def test_the_options_reach_colmap(features: str, matcher: str, name: str) -> None:
    config = SfmConfig(features=features, matcher=matcher)  # type: ignore[arg-type]
    assert matching_options(config).type == getattr(pycolmap.FeatureMatcherType, name)
    sift = extraction_options(config).type == pycolmap.FeatureExtractorType.SIFT
    assert sift == (features == "sift")


def test_what_is_not_there_is_refused() -> None:
    require_matcher(SfmConfig())
    config = SfmConfig(features="aliked", matcher="lightglue")
    try:
        pycolmap.FeatureMatcher.create(matching_options(config), pycolmap.Device.cpu)
    except RuntimeError:
        with pytest.raises(InputError, match="cannot run here") as caught:
            require_matcher(config)
        assert "brute_force" in (caught.value.hint or "")
    else:
        pytest.skip("this pycolmap can run learned matchers")


def test_cuda_is_used_where_pycolmap_has_it_and_refused_where_not() -> None:
    on_cpu = SfmConfig(device="cpu")
    assert colmap_device(on_cpu) == pycolmap.Device.cpu
    assert not matching_options(on_cpu).use_gpu
    wanted = SfmConfig(device="cuda")
    assert matching_options(SfmConfig()).use_gpu == pycolmap.has_cuda
    if pycolmap.has_cuda:
        assert colmap_device(wanted) == pycolmap.Device.cuda
    else:
        with pytest.raises(InputError, match="without CUDA") as caught:
            require_matcher(wanted)
        assert "sfm.device" in (caught.value.hint or "")
