"""Options: layers, names, ranges, and help for mistyped ones."""

from pathlib import Path

import pytest

from flows.reference import meanings
from flows.settings import (
    Settings,
    changed_options,
    flat_options,
    parse_override,
    preset_description,
    preset_names,
    resolve,
)
from pipeline.errors import InputError
from stages.registry import STAGES


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_described(name: str) -> None:
    assert resolve(name).seed >= 0
    assert preset_description(name)


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("seed: 3\nmesh:\n  resolution: 96\n")
    assert resolve("fast", file).mesh.resolution == 96
    settings = resolve("fast", file, ["mesh.resolution=128", "seed=5"])
    assert (settings.mesh.resolution, settings.seed) == (128, 5)
    assert changed_options(settings)["seed"] == 5
    assert flat_options(settings)["mesh.resolution"] == 128


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("mesh.resolutoin=5", "did you mean 'mesh.resolution'"),
        ("mehs.resolution=5", "did you mean 'mesh'"),
        ("mesh.resolution=-4", "mesh.resolution"),
        ("mesh.resolution=many", "mesh.resolution"),
        ("mesh.resolution", "expected stage.option=value"),
        ("=3", "expected stage.option=value"),
        ("seed=-1", "seed"),
    ],
)
def test_mistakes_are_named(override: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        resolve("fast", None, [override])


def test_an_unknown_preset_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'fast'"):
        resolve("fsat")


@pytest.mark.parametrize("content", ["a: [", "- 1\n", "\xff\xfe"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"mine\.yaml"):
        resolve("fast", file)
    with pytest.raises(InputError, match="no configuration file"):
        resolve("fast", tmp_path / "absent.yaml")


def test_a_yaml_file_cannot_run_code(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text(f"seed: !!python/object/apply:os.mkdir ['{tmp_path}/owned']\n")
    with pytest.raises(InputError):
        resolve("fast", file)
    assert not (tmp_path / "owned").exists()


def test_overrides_nest() -> None:
    assert parse_override("a.b.c=[1, 2]") == {"a": {"b": {"c": [1, 2]}}}
    assert parse_override("a.b=") == {"a": {"b": None}}


def test_every_option_is_described() -> None:
    described = meanings()
    assert [name for name in flat_options(Settings()) if not described.get(name)] == []


def test_stages_know_their_inputs_in_order() -> None:
    seen: set[str] = set()
    for name, stage in STAGES.items():
        assert name == stage.name
        assert set(stage.inputs) <= seen
        seen.add(name)
