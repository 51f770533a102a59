"""Cases for workers, without a server: what is refused, what is watched, where things are."""

import os
import shutil
import time
from pathlib import Path

import pytest
import yaml

from flows.cli.remote import options_by_name
from flows.cli.service import is_loopback, server_environment, worker_environment
from flows.remote.arrivals import arrived, is_quiet
from flows.remote.case import Case
from flows.remote.places import POOLS, announced, use_server
from flows.settings import resolve
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


def test_options_of_the_command_line_by_name() -> None:
    found = options_by_name(["train.steps=5", "scene.roi_scale=1.5", "seed=2"])
    assert found == {"train.steps": 5, "scene.roi_scale": 1.5, "seed": 2}
    assert resolve(layer=found).train.steps == 5


def test_a_folder_is_watched_until_its_cases_are_whole(tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    assert arrived(inbox, tmp_path / "out", "fast", {}, quiet_s=0) == []
    (inbox / "one").mkdir(parents=True)
    assert arrived(inbox, tmp_path / "out", "fast", {}, quiet_s=0) == []  # no photos yet
    (inbox / "one" / "a.jpg").write_text("a")
    assert arrived(inbox, tmp_path / "out", "fast", {}, quiet_s=3600) == []  # still being copied
    (found,) = arrived(inbox, tmp_path / "out", "fast", {"train.steps": 3}, quiet_s=0)
    assert found.request
    assert found.request.settings["train"]["steps"] == 3
    with pytest.raises(InputError, match="unknown preset"):
        arrived(inbox, tmp_path / "out", "fsat", {}, quiet_s=0)


def test_preserved_times_do_not_make_a_copy_look_whole(tmp_path: Path) -> None:
    photo = tmp_path / "a.jpg"
    photo.write_text("a")
    os.utime(photo, (0, 0))  # as `cp -p` and rsync leave it
    assert not is_quiet(tmp_path, quiet_s=3600)
    assert is_quiet(tmp_path, quiet_s=0)
    assert not is_quiet(tmp_path / "absent", quiet_s=0)


def test_a_clock_that_jumped_back_does_not_hold_a_case_up_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_text("a")
    yesterday = time.time() - 86_400
    monkeypatch.setattr(time, "time", lambda: yesterday)
    assert is_quiet(tmp_path, quiet_s=30)


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


def test_settings_of_server_and_worker(tmp_path: Path) -> None:
    plain = server_environment(tmp_path, 4200, "http://localhost:4200", None)
    assert "PREFECT_SERVER_DATABASE_CONNECTION_URL" not in plain
    postgres = server_environment(tmp_path, 4200, "http://h", "postgresql+asyncpg://u:p@h/d")
    assert postgres["PREFECT_SERVER_DATABASE_CONNECTION_URL"].startswith("postgresql")
    assert plain["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"].endswith("filesystem")
    assert worker_environment("u", "1")["CUDA_VISIBLE_DEVICES"] == "1"
    assert worker_environment("u", None)["CUDA_VISIBLE_DEVICES"] == ""


def test_prefect_yaml_names_what_exists() -> None:
    from importlib import import_module  # noqa: PLC0415

    plan = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())
    pools = {d["work_pool"]["name"]: d["name"] for d in plan["deployments"]}
    assert pools == POOLS
    for deployment in plan["deployments"]:
        file, _, name = deployment["entrypoint"].partition(":")
        assert hasattr(import_module(file.removesuffix(".py").replace("/", ".")), name)


def test_watching_needs_a_folder(tmp_path: Path) -> None:
    assert "not a folder" in refuse("watch", tmp_path / "x", "-o", tmp_path / "out").text
    (tmp_path / "inbox").mkdir()
    quiet = refuse("watch", tmp_path / "inbox", "-o", tmp_path / "out", "--once")
    assert quiet.code == 0
    shutil.rmtree(tmp_path / "inbox")
