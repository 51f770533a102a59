"""A busy server is asked again; one that refuses is not."""

import threading
import urllib.error
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows import prefect_api
from flows.prefect_api import ask


class _Server(HTTPServer):
    """Answers with one status after the other."""

    statuses: list[int]
    asked = 0


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.send_response(self.server.statuses[self.server.asked])
        self.server.asked += 1
        self.end_headers()
        self.wfile.write(b'{"id": "7"}')

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Server]:
    monkeypatch.setattr(prefect_api, "_PAUSES_S", (0.0, 0.0))
    with _Server(("127.0.0.1", 0), _Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("statuses", "answer"), [([200], {"id": "7"}), ([503, 429, 200], {"id": "7"}), ([404], None)]
)
def test_a_busy_server_is_asked_again(server: _Server, statuses: list[int], answer: object) -> None:
    server.statuses = statuses
    assert ask(f"http://127.0.0.1:{server.server_port}/runs") == answer
    assert server.asked == len(statuses)


@pytest.mark.parametrize("statuses", [[401], [503, 503, 503]])
def test_a_refusal_is_final(server: _Server, statuses: list[int]) -> None:
    server.statuses = statuses
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(f"http://127.0.0.1:{server.server_port}/runs")
    assert refused.value.code == statuses[-1]
    assert server.asked == len(statuses)
