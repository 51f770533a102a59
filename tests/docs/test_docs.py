"""The guides: links lead somewhere, examples run, the reference is current, compose files hold."""

import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from flows.batch.entries import BatchList
from flows.cli.app import app
from flows.reference import markdown
from stages.base import Stage, StageContext
from tests.flows.harness import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [*sorted(DOCS.glob("*.md")), REPOSITORY / "README.md"]


def blocks(page: str, language: str) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_guides_build_as_a_site_without_broken_links(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    built = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    for page in (REPOSITORY / "docs").glob("*.md"):
        name = "." if page.name == "README.md" else page.stem
        assert (tmp_path / name / "index.html").is_file(), page


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_in_the_guides_exist(page: Path) -> None:
    known = {command.name for command in app.registered_commands}
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"(?:^|[`/ ])porf ([a-z][a-z-]+)\b", text, flags=re.MULTILINE):
        assert name in known, f"{page.name}: porf {name}"


def test_the_reference_of_options_is_current() -> None:
    written = (DOCS / "options.md").read_text(encoding="utf-8")
    assert written == markdown(), "run: porf options --markdown > docs/options.md"


def test_the_example_stage_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, entry = blocks("adding-a-stage.md", "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    module = ModuleType("stages.brightness")
    monkeypatch.setitem(sys.modules, "stages.brightness", module)
    exec(compile(code, "brightness.py", "exec"), module.__dict__)
    stage: Stage = eval(entry, {"Stage": Stage, **module.__dict__})
    images = tmp_path / "scene" / "image"
    images.mkdir(parents=True)
    for i, value in enumerate((5, 200)):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(images / f"{i:03}.png")
    (tmp_path / "out").mkdir()
    context = StageContext(
        inputs={"scene": tmp_path / "scene"},
        external={},
        config=stage.config_type(),
        out=tmp_path / "out",
        work=tmp_path / "work",
    )
    verdict = stage.run(context)
    assert verdict.status == "warn"
    assert "000.png" in verdict.reasons[0]
    assert all((tmp_path / "out" / name).is_file() for name in stage.results)


def test_the_example_list_is_a_list() -> None:
    (text,) = blocks("batch.md", "yaml")
    assert len(BatchList.model_validate(yaml.safe_load(text)).cases) == 2


def services(name: str) -> dict[str, Any]:
    plan = yaml.safe_load((REPOSITORY / "docker" / name).read_text(encoding="utf-8"))
    return dict(plan)


@pytest.mark.parametrize("name", ["compose.yml", "workers.yml"])
def test_compose_files_hang_together(name: str) -> None:
    plan = services(name)
    assert set(plan) - {"services", "volumes"} <= {k for k in plan if k.startswith("x-")}
    for service in plan["services"].values():
        assert "image" in service or "build" in service
        if name == "workers.yml" and service.get("command") != ["deploy"]:  # it ends at once
            assert is_asked_for_health(service)
        for needed, condition in service.get("depends_on", {}).items():
            assert needed in plan["services"]
            if condition["condition"] == "service_healthy":
                assert is_asked_for_health(plan["services"][needed])
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{[^}]*\}", "/x", volume).split(":")[0]
            assert source.startswith((".", "/")) or source in plan["volumes"]
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        image = service.get("image", "x:1")
        assert ":" in image
        assert not image.endswith(":latest")


def is_asked_for_health(service: dict[str, Any]) -> bool:
    return "healthcheck" in service or "PORF_HEALTH_URL" in service["environment"]


class Answering(BaseHTTPRequestHandler):
    """Answers with the status that its path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_the_image_asks_its_container_for_its_health(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    (check,) = re.findall(r"^HEALTHCHECK .*? CMD (\[.*\])$", text, flags=re.MULTILINE)
    program, *words = json.loads(check)
    assert program == "python"
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for path, healthy in (("200", True), ("503", False), (None, True)):
            monkeypatch.delenv("PORF_HEALTH_URL", raising=False)
            if path:
                address = f"http://127.0.0.1:{server.server_port}/{path}"
                monkeypatch.setenv("PORF_HEALTH_URL", address)
            ended = subprocess.run([sys.executable, *words], capture_output=True, check=False)
            assert (ended.returncode == 0) == healthy, path
        server.shutdown()


def test_workers_file_holds_no_passwords_and_known_commands() -> None:
    plan = services("workers.yml")
    text = (REPOSITORY / "docker" / "workers.yml").read_text(encoding="utf-8")
    for line in (line for line in text.splitlines() if not line.startswith("#")):
        name, _, value = line.strip().partition(": ")
        if "PASSWORD" in name or "AUTH" in name:
            assert value.startswith("${"), line
    known = {command.name for command in app.registered_commands}
    ours = [s for s in plan["services"].values() if "build" in s]
    assert {s["command"][0] for s in ours} == {"server", "deploy", "worker"} <= known
