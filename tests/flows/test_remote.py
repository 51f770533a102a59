"""Cases for workers, without a server: what is refused, what is watched, where things are."""

import os
import shutil
import socket
import time
from pathlib import Path

import pytest
import yaml
from prefect.flows import load_flow_from_entrypoint

from flows.cli.service import is_loopback, server_environment, worker_environment
from flows.remote.arrivals import arrived
from flows.remote.case import Case
from flows.remote.flow import reconstruct_case
from flows.remote.places import POOLS, announced, use_server
from flows.remote.runs import telling_digits
from flows.request import case_name
from flows.settings import options_over, resolve
from pipeline.errors import InputError
from tests.flows.harness import REPOSITORY, refuse


def test_a_case_becomes_a_request_and_is_refused_early() -> None:
    case = Case(
        photos=Path("/data/skull/photos"), out=Path("/r"), options={"train.steps": 7, "seed": 3}
    )
    request = case.request()
    assert case.name == "skull @ fast"
    assert request.settings["train"]["steps"] == 7
    assert request.settings["seed"] == 3
    for bad, word in (
        ({"photos": "relative"}, "absolute"),
        ({"out": "/data/../etc"}, "absolute"),
        ({"options": {"train.setps": 1}}, "did you mean 'train.steps'"),
        ({"preset": "fsat"}, "did you mean 'fast'"),
    ):
        wrong = Case.model_validate({**case.model_dump(), **bad})
        with pytest.raises(InputError, match=word):
            wrong.request()


def test_a_case_is_named_by_its_folder() -> None:
    names = {"/data/skull/photos": "skull", "/data/skull": "skull", "/photos": "photos"}
    assert {path: case_name(Path(path)) for path in names} == names


def test_several_cases_have_folders_of_their_own(tmp_path: Path) -> None:
    for words, told in (
        (["/a/photos", "/a", "-o", tmp_path], "same output folder"),
        (["/a", "/b", "-o", tmp_path, "--masks", "/m"], "belong to one case"),
    ):
        refused = refuse("submit", *words)
        assert (refused.code, told in refused.text) == (2, True), refused.text


def test_options_of_the_command_line_by_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {steps: 4, grid: {samples: 9}}\n")
    words = ["train.steps=5", "scene.roi_scale=1.5", "seed=2"]
    found = options_over("dtu_sift_porf", file, words)
    assert found == {
        "train.steps": 5,
        "train.grid.samples": 9,
        "scene.roi_scale": 1.5,
        "seed": 2,
    }
    assert resolve("dtu_sift_porf", layer=found) == resolve("dtu_sift_porf", file, words)


def test_ids_are_shown_as_far_as_they_differ() -> None:
    alike = [f"01a207a9-ea22-7276-a618-c4f28aaa60d{n}" for n in range(3)]
    assert telling_digits([]) == telling_digits(alike[:1]) == 8
    assert telling_digits(alike) == 36
    assert telling_digits([alike[0], "01a207a9-eb" + alike[1][11:]]) == 11


def test_a_folder_is_watched_until_its_cases_are_whole(tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    assert arrived(inbox, out, "fast", {}, quiet_s=0) == []
    (inbox / "one").mkdir(parents=True)
    assert arrived(inbox, out, "fast", {}, quiet_s=0) == []  # no photos yet
    photo = inbox / "one" / "a.jpg"
    photo.write_text("a")
    (found,) = arrived(inbox, out, "fast", {"train.steps": 3}, quiet_s=0)
    assert found.request
    assert found.request.settings["train"]["steps"] == 3
    with pytest.raises(InputError, match="unknown preset"):
        arrived(inbox, out, "fsat", {}, quiet_s=0)


@pytest.mark.parametrize("file", ["one/photos/b.jpg", "one/masks/a.png", "one/photos/a.jpg"])
def test_a_case_whose_files_still_come_or_grow_is_left_alone(tmp_path: Path, file: str) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "out"
    for name in ("one/photos/a.jpg", "one/masks/z.png", "two/photos/a.jpg"):
        path = inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("a")
    waited = []

    def another_comes(seconds: float) -> None:
        waited.append(seconds)
        with (inbox / file).open("a") as copied:
            copied.write("more")
        os.utime(inbox / file, (0, 0))  # as `cp -p` and rsync leave it

    found = arrived(inbox, out, "fast", {}, quiet_s=30, sleep=another_comes)
    assert [run.name for run in found] == ["two"]
    assert waited == [30]


@pytest.mark.parametrize("jump_s", [-86_400, 3600, 86_400])
def test_a_case_is_whole_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump_s: float
) -> None:
    path = tmp_path / "inbox" / "one" / "a.jpg"
    path.parent.mkdir(parents=True)
    path.write_text("a")
    wrong = time.time() + jump_s
    monkeypatch.setattr(time, "time", lambda: wrong)
    copying = arrived(
        path.parents[1], tmp_path / "out", "fast", {}, 30, lambda _: void(path.write_text("ab"))
    )
    assert copying == []
    whole = arrived(path.parents[1], tmp_path / "out", "fast", {}, 30, lambda _: None)
    assert len(whole) == 1


def void(_: object) -> None:
    """Nothing, from something."""


def test_the_server_is_found_or_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORF_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(InputError, match="no Prefect server answers"):
        use_server()
    with announced("http://127.0.0.1:9/api"), pytest.raises(InputError, match="no Prefect server"):
        use_server()  # announced, but dead
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9"):
        use_server()
    for command in (["runs"], ["cancel", "abcd"], ["deploy"], ["submit", tmp_path]):
        assert refuse(*command).code == 2


def test_the_server_is_for_this_machine_unless_it_has_a_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORF_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_SERVER_API_AUTH_STRING", raising=False)
    refused = refuse("server", "--host", "0.0.0.0")
    assert refused.code == 2
    assert "PREFECT_SERVER_API_AUTH_STRING" in refused.text
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.8.8.8")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.2", "example.org")))


def test_a_port_that_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORF_HOME", str(tmp_path))
    with socket.socket() as other, announced("http://127.0.0.1:9/api"):
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for words in (["server", "--port", port], ["worker", "--health-port", port]):
            refused = refuse(*map(str, words))
            assert refused.code == 2
            assert f"127.0.0.1:{port}" in refused.text
        assert (tmp_path / "service" / "server.json").is_file()  # the other one's


def test_settings_of_server_and_worker(tmp_path: Path) -> None:
    plain = server_environment(tmp_path, 4200, "http://localhost:4200", None)
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in plain
    postgres = server_environment(tmp_path, 4200, "http://h", "postgresql+asyncpg://u:p@h/d")
    assert postgres["PREFECT_SERVER_DATABASE_CONNECTION_URL"].startswith("postgresql")
    assert plain["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith("filesystem")
    assert worker_environment("u", "1")["CUDA_VISIBLE_DEVICES"] == "1"
    assert worker_environment("u", None)["CUDA_VISIBLE_DEVICES"] == ""


def test_prefect_yaml_names_what_exists() -> None:
    plan = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    pools = {d["work_pool"]["name"]: d["name"] for d in plan["deployments"]}
    assert pools == POOLS
    for deployment in plan["deployments"]:
        # by its module: workers have the package and run somewhere else than here
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        assert flow.name == reconstruct_case.name


def test_watching_needs_a_folder(tmp_path: Path) -> None:
    assert "not a folder" in refuse("watch", tmp_path / "x", "-o", tmp_path / "out").text
    (tmp_path / "inbox").mkdir()
    quiet = refuse("watch", tmp_path / "inbox", "-o", tmp_path / "out", "--once")
    assert quiet.code == 0
    shutil.rmtree(tmp_path / "inbox")
