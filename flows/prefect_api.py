"""Questions to a Prefect server over plain HTTP, for code that cannot wait for Prefect to load."""

import base64
import json
import os
import time
import urllib.error
import urllib.request
from typing import Any

_UNKNOWN = 404
BUSY = (429, 502, 503)
"""Answers of a server that lives: 503 is what SQLite's "database is locked" becomes."""
_PAUSES_S = (0.5, 1.0, 2.0, 4.0)


def ask(url: str, body: dict[str, Any] | None = None, timeout_s: float = 30.0) -> Any:
    """The server's answer: a GET, or a POST where there is a body; None for what it does not know.

    A server that is busy is asked again for some seconds.

    Raises:
        OSError: nobody answers, or the server refuses.
    """
    for pause_s in (*_PAUSES_S, None):
        try:
            with urllib.request.urlopen(_request(url, body), timeout=timeout_s) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code == _UNKNOWN:
                return None
            if error.code not in BUSY or pause_s is None:
                raise
            time.sleep(pause_s)
    raise AssertionError("the last attempt returns or raises")


def _request(url: str, body: dict[str, Any] | None) -> urllib.request.Request:
    headers = {"Content-Type": "application/json"}
    auth = os.environ.get("PREFECT_API_AUTH_STRING")
    if auth:
        headers["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()
    data = None if body is None else json.dumps(body).encode()
    return urllib.request.Request(url, data=data, headers=headers)
