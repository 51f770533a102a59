"""What orchestration costs, apart from what the stages compute.

    python benchmarks/scale.py OUT [--cases 100] [--keys 1000] [--jobs 2] [--to STAGE]

1. `porf status` and `porf run` with nothing to do, on a store of that many keys.
2. `porf batch` over that many tiny cases: wall time, the stages' own time, and the difference
   spread over cases and stages; processor time and memory of the whole (command, cases, stages,
   server); size of Prefect's database. A second batch, all cached.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from flows.case_folder import CaseFolder, RunRecord, StageState
from flows.plan import external_files, make_recipe
from flows.settings import resolve
from pipeline.demo import render_demo
from pipeline.store.manifest import Manifest
from stages.registry import route

REPOSITORY = Path(__file__).resolve().parent.parent
TINY = REPOSITORY / "tests" / "flows" / "small.yaml"
_PUBLISHED = "2026-01-01T00:00:00+00:00"


def porf(*words: object, home: Path) -> float:
    """Run a command; returns its seconds."""
    environment = {**os.environ, "PORF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    environment.pop("PREFECT_API_URL", None)
    began = time.monotonic()
    command = [sys.executable, "-m", "flows.cli", *map(str, words)]
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def fill_store(photos: Path, out: Path, keys: int) -> None:
    """Publish that many small artifacts, the last ones as the current results."""
    folder = CaseFolder(out)
    folder.create()
    external = external_files({"photos": photos}, folder.hashes())
    stages, known, settings = route(external), {}, resolve()
    for seed in reversed(range(-(-keys // len(stages)))):
        settings, contents = resolve(layer={"seed": seed}), {}
        for name, stage in stages.items():
            recipe = make_recipe(stage, settings, contents, external)
            with folder.store.building(name, recipe.key) as built:
                for number in range(20):
                    (built / f"{number}.png").write_bytes(recipe.key.encode())
                stamps = {"started_at": _PUBLISHED, "finished_at": _PUBLISHED}
                made = Manifest(recipe=recipe, key=recipe.key, files={}, **stamps)
                contents[name] = folder.store.publish(built, made).content
            known[name] = recipe.key
    for name, key in known.items():
        folder.save_state(name, StageState(status="done", key=key))
    folder.save_record(
        RunRecord(
            photos=str(photos),
            external={"photos": str(photos)},
            preset="fast",
            settings=settings.model_dump(mode="json"),
            photo_files=external["photos"],
            keys=known,
        )
    )


def measure_store(root: Path, photos: Path, keys: int) -> dict[str, float]:
    """Seconds of commands with nothing to do."""
    out, home = root / "store", root / "home"
    shutil.rmtree(out, ignore_errors=True)
    fill_store(photos, out, keys)
    commands = {
        "status": ("status", out),
        "run": ("run", photos, "-o", out),
        "gc": ("gc", out),
    }
    found: dict[str, float] = {"keys": keys}
    for name, words in commands.items():
        before_s = _processor_s()
        found[f"{name}_s"] = round(porf(*words, home=home), 2)
        found[f"{name}_processor_s"] = round(_processor_s() - before_s, 2)
    return found


class MemoryWatch:
    """Largest memory of all processes that name a folder: `with MemoryWatch(folder) as watch`.

    Proportional set size: pages that processes share count once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._ended = str(folder), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak_mb = self.server_mb = 0.0

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(3):
            found = [p for p in psutil.process_iter(["environ"]) if self._is_ours(p)]
            sizes = {process: self._size_mb(process) for process in found}
            self.peak_mb = max(self.peak_mb, sum(sizes.values()))
            servers = [mb for process, mb in sizes.items() if "uvicorn" in self._line(process)]
            self.server_mb = max(self.server_mb, *servers, 0.0)

    def _is_ours(self, process: psutil.Process) -> bool:
        return str((process.info["environ"] or {}).get("PORF_HOME", "")).startswith(self._folder)

    @staticmethod
    def _size_mb(process: psutil.Process) -> float:
        try:
            return float(process.memory_full_info().pss) / 1e6
        except psutil.Error:
            return 0.0

    @staticmethod
    def _line(process: psutil.Process) -> str:
        try:
            return " ".join(process.cmdline())
        except psutil.Error:
            return ""


def measure_batch(
    root: Path, photos: Path, cases: int, jobs: int, stop: str | None
) -> dict[str, float]:
    """A batch of equal tiny cases, and the same again."""
    source, out, home = root / "cases", root / "results", root / "home"
    for folder in (source, out, home):
        shutil.rmtree(folder, ignore_errors=True)
    for number in range(cases):
        shutil.copytree(photos, source / f"{number:03}")
    words = ("batch", source, "-o", out, "--config", TINY, "--jobs", jobs)
    words += ("--to", stop) if stop else ()
    before_s = _processor_s()
    with MemoryWatch(home) as watch:
        wall_s = porf(*words, home=home)
    processor_s = _processor_s() - before_s
    again_s = porf(*words, home=home)
    runs = json.loads((out / "batch.json").read_bytes())["runs"]
    inside_s = sum(run["wall_s"] for run in runs)
    stages = sum(len(CaseFolder(out / run["name"]).current_manifests()) for run in runs)
    spent_s = wall_s * jobs
    return {
        "cases": cases,
        "jobs": jobs,
        "wall_s": round(wall_s, 1),
        "cases_per_hour": round(3600 * cases / wall_s),
        "processor_s_per_case_without_server": round(processor_s / cases, 2),
        "peak_memory_of_everything_mb": round(watch.peak_mb),
        "memory_of_the_server_mb": round(watch.server_mb),
        "in_stages_share": round(inside_s / spent_s, 3),
        "beside_stages_per_case_s": round((spent_s - inside_s) / cases, 2),
        "beside_stages_per_stage_s": round((spent_s - inside_s) / max(stages, 1), 2),
        "peak_memory_of_a_stage_mb": round(max(run["peak_memory_mb"] for run in runs)),
        "same_again_s": round(again_s, 1),
        "database_mb": round(_size(home / "prefect") / 1e6, 1),
        "results_mb": round(_size(out) / 1e6, 1),
    }


def _processor_s() -> float:
    """Seconds of processor time of all commands so far, with what they waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--to", help="stop the cases after this stage")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) // 2))
    arguments = parser.parse_args()
    root = arguments.out.absolute()
    photos = root / "rendered" / "photos"
    if not photos.is_dir():
        (root / "rendered").mkdir(parents=True, exist_ok=True)
        render_demo(root / "rendered", views=8, width=320, height=240, supersample=1)
    found = {}
    if arguments.keys:
        found["nothing to do"] = measure_store(root, photos, arguments.keys)
    if arguments.cases:
        found["batch"] = measure_batch(root, photos, arguments.cases, arguments.jobs, arguments.to)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
