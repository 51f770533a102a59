"""Options of a run: defaults, then the preset, then a file, then `--set`."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

import configs
from pipeline.errors import InputError
from pipeline.suggest import nearest
from stages.registry import STAGES

DEFAULT_PRESET = "fast"
_META = ("description",)


class _Settings(BaseModel):
    """Base of `Settings`: what concerns more than one stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    seed: int = Field(0, ge=0, lt=2**31, description="Source of every random draw.")


_SECTIONS: dict[str, Any] = {
    name: (stage.config_type, Field(default_factory=stage.config_type))
    for name, stage in STAGES.items()
}
Settings: Any = create_model("Settings", __base__=_Settings, **_SECTIONS)
"""All options of a run: `seed`, and one section a stage."""


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    return sorted(path.stem for path in _preset_folder().glob("*.yaml"))


def preset_description(name: str) -> str:
    """The preset's own one-line description."""
    return str(read_yaml(_preset_path(name)).get("description", ""))


def resolve(
    preset: str = DEFAULT_PRESET,
    file: Path | None = None,
    overrides: Iterable[str] = (),
    layer: Mapping[str, Any] | None = None,
) -> Any:
    """The options of a run.

    Args:
        preset: name of a file in `configs/`.
        file: YAML of the same form, applied over the preset.
        overrides: `stage.option=value` (value in YAML), applied last.
        layer: values by dotted name, applied over the file.

    Raises:
        InputError: an unknown preset, stage or option (the nearest valid one is suggested), a
            value out of range, or a file that cannot be read.
    """
    values = _without_meta(read_yaml(_preset_path(preset)))
    if file is not None:
        values = merged(values, _without_meta(read_yaml(file)))
    for name, value in (layer or {}).items():
        values = merged(values, _nested(name, value))
    for override in overrides:
        values = merged(values, parse_override(override))
    return settings_from(values)


def settings_from(values: Mapping[str, Any]) -> Any:
    """Validate a plain dictionary; raises `InputError` in a user's words."""
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise InputError(
            "; ".join(_explain(problem) for problem in error.errors()),
            hint="`porf options [STAGE]` lists every option with its range",
        ) from error


def parse_override(text: str) -> dict[str, Any]:
    """`stage.option=value` as a nested dictionary; the value is YAML."""
    name, separator, value = text.partition("=")
    parts = name.strip().split(".")
    if not separator or not all(parts):
        raise InputError(f"expected stage.option=value, got '{text}'")
    try:
        parsed = yaml.safe_load(value)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{name}: '{value}' is not a value in YAML") from error
    return _nested(name, parsed)


def _nested(name: str, value: Any) -> dict[str, Any]:
    """A value by dotted name as nested dictionaries."""
    nested: Any = value
    for part in reversed(name.strip().split(".")):
        nested = {part: nested}
    return dict(nested)


def changed_options(settings: Any) -> dict[str, Any]:
    """Options that differ from the defaults, by dotted name."""
    default = flat_options(Settings())
    return {name: v for name, v in flat_options(settings).items() if default.get(name) != v}


def options_over(preset: str, file: Path | None, overrides: Iterable[str]) -> dict[str, Any]:
    """Options by dotted name that `file` and `overrides` change over the preset.

    Raises:
        InputError: as `resolve`.
    """
    plain = flat_options(resolve(preset))
    wanted = flat_options(resolve(preset, file, overrides))
    return {name: value for name, value in wanted.items() if plain.get(name) != value}


def flat_options(settings: Any) -> dict[str, Any]:
    """All options by dotted name."""
    return dict(_flatten(settings.model_dump(mode="json")))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _explain(problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    name = ".".join(location)
    if problem["type"] == "extra_forbidden":
        kind = "stage" if len(location) == 1 and isinstance(problem["input"], Mapping) else "option"
        return f"unknown {kind} '{name}'{nearest(name, _known_names(location))}"
    return f"{name}: {problem['msg'].lower()}, got {problem['input']!r}"


def _known_names(location: list[str]) -> list[str]:
    names = list(flat_options(Settings()))
    if len(location) == 1:
        return list(Settings.model_fields)
    parent = ".".join(location[:-1]) + "."
    return [name for name in names if name.startswith(parent)] or names


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, section by section."""
    result = dict(base)
    for name, value in over.items():
        old = result.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[name] = merged(old, value) if both else value  # type: ignore[arg-type]
    return result


def _without_meta(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _META}


def _preset_folder() -> Path:
    return Path(configs.__file__).parent


def _preset_path(name: str) -> Path:
    path = _preset_folder() / f"{name}.yaml"
    if name not in preset_names():
        raise InputError(
            f"unknown preset '{name}'{nearest(name, preset_names())}",
            hint="presets: " + ", ".join(preset_names()) + "; your own file: --config FILE",
        )
    return path


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file's mapping, empty where the file is.

    Raises:
        InputError: no such file, not YAML, or not a mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"no configuration file at {path}") from error
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path} is not readable YAML ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected sections by stage, got {type(values).__name__}")
    return values
