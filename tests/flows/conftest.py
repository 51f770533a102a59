"""One small real case, run once through the command line, and a Prefect server shared by all."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.server import prefect_server
from tests.flows.harness import Finished, Porf, SmallCase


@pytest.fixture(scope="session")
def porf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Porf]:
    home = tmp_path_factory.mktemp("home")
    old = {name: os.environ.get(name) for name in ("PORF_HOME", "PREFECT_HOME", "PREFECT_API_URL")}
    os.environ["PORF_HOME"] = str(home)
    os.environ.pop("PREFECT_HOME", None)
    os.environ.pop("PREFECT_API_URL", None)
    try:
        env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
        with prefect_server() as api_url:
            yield Porf(env, api_url)
    finally:
        for name, value in old.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@pytest.fixture(scope="session")
def photos_and_truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.demo import render_demo  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("small")
    render_demo(folder, views=10, width=320, height=240, supersample=2)
    return folder


@pytest.fixture(scope="session")
def first_run(porf: Porf, photos_and_truth: Path) -> tuple[SmallCase, Finished]:
    """The case, run from nothing; tests that change it take `small_case` instead."""
    made = photos_and_truth
    case = SmallCase(made / "photos", made / "truth", made / "out")
    return case, porf.run(case)


@pytest.fixture
def small_case(first_run: tuple[SmallCase, Finished], tmp_path: Path) -> SmallCase:
    """A copy of the finished case to do things to."""
    done, finished = first_run
    assert finished.code == 0, finished.text
    shutil.copytree(done.out, tmp_path / "out")
    return SmallCase(done.photos, done.truth, tmp_path / "out")
