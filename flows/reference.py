"""The reference of every option, generated from the config models."""

import json
from collections.abc import Iterator
from typing import Any

from flows.settings import Settings, flat_options, preset_description, preset_names, resolve
from stages.registry import STAGES

_LIMITS = {
    "minimum": "≥",
    "exclusiveMinimum": ">",
    "maximum": "≤",
    "exclusiveMaximum": "<",
}


def meanings() -> dict[str, str]:
    """Description and range of every option by dotted name."""
    schema = Settings.model_json_schema()
    return dict(_described(schema, schema, ""))


def markdown() -> str:
    """The reference as a page; values that depend on the machine are named, not given."""
    told, defaults = meanings(), flat_options(Settings())
    blocks = [_PREAMBLE, _presets(defaults)]
    for name, stage in {**dict.fromkeys(["seed"]), **STAGES}.items():
        options = [o for o in defaults if o == name or o.startswith(name + ".")]
        if options:
            heading = f"## {name}" + (f"\n\n{stage.description}" if stage else "")
            rows = [_row(o, defaults[o], told.get(o, "")) for o in options]
            head = [f"{heading}\n", "| option | default | meaning |", _RULE]
            blocks.append("\n".join([*head, *rows]))
    return "\n\n".join(blocks) + "\n"


_RULE = "|---|---|---|"
_PREAMBLE = """# Options

Made by `porf options --markdown`; a test holds it to the config models. Set options with
`--set stage.option=value`, or in a file for `--config` with the same nesting. Nested options read
`train.grid.samples`. An unknown name is refused with the nearest valid one."""


def _presets(defaults: dict[str, Any]) -> str:
    rows = []
    for name in preset_names():
        changed = {o: v for o, v in flat_options(resolve(name)).items() if v != defaults.get(o)}
        values = ", ".join(f"`{o}={_value(o, v)}`" for o, v in changed.items())
        rows.append(f"| `{name}` | {_cell(preset_description(name))} | {_cell(values) or '–'} |")
    head = "| preset | for | options that differ from the defaults |"
    return "\n".join(["## Presets\n", head, _RULE, *rows])


def _row(option: str, default: Any, meaning: str) -> str:
    return f"| `{option}` | `{_cell(_value(option, default))}` | {_cell(meaning)} |"


def _value(option: str, value: Any) -> str:
    if option == "sfm.threads":
        return "all cores"
    return "unset" if value is None else json.dumps(value, ensure_ascii=False)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _described(node: dict[str, Any], root: dict[str, Any], prefix: str) -> Iterator[Any]:
    for name, field in node.get("properties", {}).items():
        reference = field.get("$ref") or next(
            (part["$ref"] for part in field.get("allOf", []) if "$ref" in part), None
        )
        target = root["$defs"][reference.rsplit("/", 1)[1]] if reference else field
        if "properties" in target:
            yield from _described(target, root, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.get("description", "") + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    found = [f"{sign} {field[name]}" for name, sign in _LIMITS.items() if name in field]
    if "enum" in field:
        found.append("one of " + ", ".join(json.dumps(v) for v in field["enum"]))
    return f" [{', '.join(found)}]" if found else ""
