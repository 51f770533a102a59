"""JSON from outside is read, or refused by a ValueError."""

import pytest

from pipeline.formats.json_text import parse_json


def test_plain_json_is_read() -> None:
    assert parse_json(b'{"a": [1, 2.5, null, "\\u00e9"]}') == {"a": [1, 2.5, None, "é"]}
    assert parse_json("[]") == []


@pytest.mark.parametrize(
    "content",
    [b"{", b"\xff\xff", b"[" * 100_000, b'{"a":' * 100_000, b"[1" + b"0" * 400 + b"]"],
    ids=["cut off", "no text", "deep list", "deep object", "beyond any float"],
)
def test_what_is_no_usable_json_is_a_value_error(content: bytes) -> None:
    with pytest.raises(ValueError):  # whatever the JSON module says
        parse_json(content)
