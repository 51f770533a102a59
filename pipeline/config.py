"""Base of every stage's options.

One pydantic model a stage is at once the YAML schema, the command-line options and the source of
the cache key. Options that cannot change a result are marked with `NOT_IN_KEY`.
"""

from typing import Any

from pydantic import BaseModel, ConfigDict

NOT_IN_KEY: dict[str, Any] = {"in_key": False}
"""`Field(..., json_schema_extra=NOT_IN_KEY)`: the option affects speed or place, not the result."""


class StageConfig(BaseModel):
    """Options of one stage: frozen, and unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def key_options(self) -> dict[str, Any]:
        """The options that identify a result, JSON-serialisable."""
        return _key_options(self)


def _key_options(model: BaseModel) -> dict[str, Any]:
    plain = model.model_dump(mode="json")
    options: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        extra = field.json_schema_extra
        if isinstance(extra, dict) and extra.get("in_key") is False:
            continue
        value = getattr(model, name)
        options[name] = _key_options(value) if isinstance(value, BaseModel) else plain[name]
    return options
