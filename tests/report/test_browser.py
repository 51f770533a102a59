"""The page in a real headless browser; skips where there is none."""

import base64
import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

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


SNAPSHOT = """<script>addEventListener("load", () => setTimeout(() => {
  if (window.reportViewer.ready) document.body.dataset.snapshot = window.reportViewer.snapshot();
}, 500));</script></body>"""


@pytest.fixture(scope="module")
def loaded(report, tmp_path_factory):
    """The page after its scripts ran, and what the console said."""
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    folder = tmp_path_factory.mktemp("page")
    text = (report / "report.html").read_text(encoding="utf-8")
    (folder / "page.html").write_text(text.replace("</body>", SNAPSHOT), encoding="utf-8")
    done = _browse(folder / "page.html", folder / "profile")
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    # the software renderer remarks on being slow
    return done.stdout, [line for line in console if "GL Driver Message" not in line]


def _browse(page, profile, *options):
    command = [BROWSER, *OPTIONS, *options, f"--user-data-dir={profile}", "--dump-dom"]
    command.append(page.as_uri())
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


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
    encoded = re.search(r'data-snapshot="data:image/png;base64,([^"]+)"', loaded[0])
    assert encoded, "no picture of the canvas"
    with Image.open(io.BytesIO(base64.b64decode(encoded.group(1)))) as picture:
        pixels = np.asarray(picture.convert("RGBA")).reshape(-1, 4)
    drawn = pixels[pixels[:, 3] > 0]
    assert 0.01 < len(drawn) / len(pixels) < 0.5
    assert len(np.unique(drawn, axis=0)) > 500, "a surface in many colours"
    assert (np.abs(drawn[:, :3].astype(int) - [59, 125, 189]).max(axis=1) < 12).any(), "cameras"


def test_charts_and_pictures_are_there(loaded):
    assert loaded[0].count("<svg") >= 6
    assert loaded[0].count("data:image/webp") >= 30


MEASURE = """<script>
const wide = [...document.body.querySelectorAll("main *")].filter((e) =>
  !e.closest(".scroll, svg, nav") && e.getBoundingClientRect().right > innerWidth + 1);
const canvas = document.querySelector("#viewer canvas").getBoundingClientRect();
parent.postMessage(JSON.stringify({
  width: innerWidth, page: document.documentElement.scrollWidth,
  wide: wide.map((e) => e.outerHTML.slice(0, 80)), canvas: canvas.height,
}), "*");
</script>"""
PHONE = """<body><script>onmessage = (e) => { document.body.dataset.measured = e.data; };</script>
<iframe src="page.html" style="width: 375px; height: 800px; border: 0"></iframe></body>"""


def test_nothing_sticks_out_on_a_phone(report, tmp_path):
    """In a frame as wide as a phone, since a browser's window has a least width."""
    if BROWSER is None:
        pytest.skip("no chromium on this machine")
    text = (report / "report.html").read_text(encoding="utf-8")
    page = text.replace("</body>", MEASURE + "</body>")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    (tmp_path / "phone.html").write_text(PHONE, encoding="utf-8")
    dom = _browse(tmp_path / "phone.html", tmp_path / "profile").stdout
    found = re.search(r'data-measured="([^"]*)"', dom)
    assert found
    measured = json.loads(html.unescape(found.group(1)))
    assert measured["width"] == 375
    assert measured["page"] <= 375 and measured["wide"] == []
    assert 200 < measured["canvas"] < 500
