"""`views.json`: what became of every photo."""

import json
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline.errors import InputError


class ViewRecord(BaseModel):
    """One photo of the user.

    Attributes:
        index: position among the registered views (`image/000.png` is 0), None if not registered.
        name: the photo's file name.
        registered: whether its camera is known.
        reason: why it is not registered; None if it is.
    """

    index: int | None
    name: str
    registered: bool
    reason: str | None = None


_RECORDS = TypeAdapter(list[ViewRecord])


def save_views(path: Path, views: list[ViewRecord]) -> None:
    """Write `views` as a JSON list."""
    path.write_text(json.dumps(_RECORDS.dump_python(views), indent=1, ensure_ascii=False))


def load_views(path: Path) -> list[ViewRecord]:
    """Read what `save_views` wrote.

    Raises:
        InputError: no such file, or it holds anything else.
    """
    try:
        return _RECORDS.validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        said = str(error).splitlines()[0]
        raise InputError(f"{path} is not a readable list of views ({said})") from error


def registered_names(views: list[ViewRecord]) -> list[str]:
    """Photo names of the registered views, by index."""
    known = sorted((v for v in views if v.index is not None), key=lambda v: v.index or 0)
    return [v.name for v in known]
