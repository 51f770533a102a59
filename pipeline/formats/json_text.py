"""JSON from outside."""

import json
from typing import Any


def parse_json(content: bytes | str) -> Any:
    """What JSON says, whoever wrote it.

    Raises:
        ValueError: no JSON, nested too deep to be read, or with a whole number that no float holds.
    """
    try:
        return json.loads(content, parse_int=_bounded)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _bounded(digits: str) -> int:
    number = int(digits)
    try:
        float(number)
    except OverflowError as error:
        raise ValueError(f"a number of {len(digits)} digits") from error
    return number
