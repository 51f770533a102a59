"""The page in a real headless browser; skips where there is none."""

import re
import shutil
import subprocess

import pytest

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--enable-logging=stderr",
    "--virtual-time-budget=4000",
]


@pytest.fixture(scope="module")
def loaded(report, tmp_path_factory):
    """The page after its scripts ran, and what the console said."""
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    path = report / "report.html"
    profile = tmp_path_factory.mktemp("profile")
    command = [BROWSER, *OPTIONS, f"--user-data-dir={profile}", "--dump-dom", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # the software renderer remarks on being slow
    return done.stdout, [line for line in console if "GL Driver Message" not in line]


def test_no_errors_in_the_console(loaded):
    assert loaded[1] == []


def test_viewer_draws(loaded):
    state = re.search(r'id="viewer"[^>]*data-state="([^"]+)"', loaded[0])
    assert state, "the viewer's script did not run"
    if state.group(1) == "no-webgl":
        pytest.skip("this browser has no WebGL 2")
    assert state.group(1) == "ready"
    assert 'data-show="mesh"' in loaded[0]
    assert 'data-texture="shown"' in loaded[0]


def test_charts_and_pictures_are_there(loaded):
    assert loaded[0].count("<svg") >= 6
    assert loaded[0].count("data:image/webp") >= 30
