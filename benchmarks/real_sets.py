"""Run the pipeline on sets of photos with known truth and write the tables of `docs/results.md`.

    python benchmarks/real_sets.py DATA OUT [SET …] [--jobs N] [--threads N]

DATA holds one folder a set: `photos/` (or the photos themselves), and where known `cameras.npz`
and `mesh_gt.ply`. Sets that are done already are not computed again.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tables import markdown
from flows.case_folder import CaseFolder
from flows.console import duration
from stages.registry import STAGES

REPOSITORY = Path(__file__).resolve().parent.parent
SETS = ("kermit", "fountain", "temple", "dtu65", "render_plant")
HEADLINES = (
    "rotation_mean_sfm",
    "rotation_mean_refined",
    "rotation_max_refined",
    "rotation_common_refined",
    "rotation_scatter_refined",
    "translation_of_span_refined",
    "chamfer_of_radius",
    "surface_accuracy_of_radius",
    "surface_completeness_of_radius",
    "f_score",
    "heldout_epipolar_median_sfm",
    "heldout_epipolar_median_refined",
    "psnr_heldout",
)
"""Measures of the table; every run's `metrics.json` has all of them."""


@dataclass(frozen=True)
class Result:
    """What a finished run of one set tells."""

    name: str
    views: list[dict[str, Any]]
    metrics: list[dict[str, Any]]
    stages: dict[str, Any]


def run_set(data: Path, out: Path, name: str, threads: int) -> None:
    """Run one set with the default preset; truth is given to the evaluation only."""
    folder = data / name
    photos = folder / "photos" if (folder / "photos").is_dir() else folder
    command = [sys.executable, "-m", "flows.cli", "run", str(photos), "-o", str(out / name)]
    for option, file in (("ground-truth", "cameras.npz"), ("ground-truth-mesh", "mesh_gt.ply")):
        if (folder / file).is_file():
            command += [f"--{option}", str(folder / file)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run(command, check=True, cwd=REPOSITORY, env=environment)


def read_set(out: Path, name: str) -> Result:
    """Collect the views, metrics and manifests of a finished set."""
    folder = CaseFolder(out / name)
    keys = folder.load_record().keys
    found = {stage: folder.store.find(stage, keys[stage])[0] for stage in STAGES}
    return Result(
        name,
        json.loads((out / name / "views.json").read_bytes()),
        json.loads((out / name / "metrics.json").read_bytes())["metrics"],
        {stage: manifest for stage, manifest in found.items() if manifest},
    )


def tables(results: list[Result]) -> str:
    """The Markdown of all tables."""
    return "\n\n".join([_accuracy(results), _times(results), _verdicts(results)])


def _accuracy(results: list[Result]) -> str:
    rows = [["figure", "unit", *(r.name for r in results)]]
    counted = [f"{sum(v['registered'] for v in r.views)} of {len(r.views)}" for r in results]
    rows.append(["views registered", "", *counted])
    for name in HEADLINES:
        units = [m["unit"] for r in results for m in r.metrics if m["name"] == name]
        if units:
            rows.append([name, units[0], *(_value(r, name) for r in results)])
    return "### Accuracy\n\n" + markdown(rows)


def _value(result: Result, name: str) -> str:
    value = next((m["value"] for m in result.metrics if m["name"] == name), None)
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _times(results: list[Result]) -> str:
    rows = [["stage", *(r.name for r in results)]]
    for stage in STAGES:
        rows.append([stage, *(_cost(r.stages[stage]) for r in results)])
    total = [duration(sum(m.wall_s for m in r.stages.values())) for r in results]
    peak = [f"{max(m.peak_memory_mb for m in r.stages.values()) / 1024:.1f} GB" for r in results]
    rows += [["**total**", *total], ["**peak memory**", *peak]]
    return "### Time and peak memory of each stage\n\n" + markdown(rows)


def _cost(manifest: Any) -> str:
    return f"{duration(manifest.wall_s)}, {manifest.peak_memory_mb / 1024:.1f} GB"


def _verdicts(results: list[Result]) -> str:
    lines = [
        f"- **{r.name}**, {stage}: {reason}"
        for r in results
        for stage, manifest in r.stages.items()
        for reason in manifest.verdict.reasons
    ]
    return "### Warnings that the runs gave\n\n" + ("\n".join(lines) or "None.")


def _preamble(jobs: int, threads: int, remark: str) -> str:
    return f"""# Results

Made by `python benchmarks/real_sets.py DATA OUT --jobs {jobs}` with the `fast` preset on
{platform.machine()} with {os.cpu_count()} CPU cores and no GPU, {jobs} set(s) at a time with
{threads} thread(s) each. The pipeline gets the photos alone; true cameras and meshes serve the
evaluation only. What a figure means is said in a sentence in every run's `metrics.json`.
{remark}"""


def main() -> None:
    """Run the sets asked for and write `docs/results.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--jobs", type=int, default=1, help="sets that run at the same time")
    parser.add_argument("--threads", type=int, help="of one set; default: all cores, shared")
    parser.add_argument("--remark", default="", help="a sentence about these runs")
    arguments = parser.parse_args()
    threads = arguments.threads or max(1, (os.cpu_count() or 1) // arguments.jobs)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        runs = [
            pool.submit(run_set, arguments.data, arguments.out, name, threads)
            for name in arguments.sets
        ]
    for run in runs:
        run.result()
    results = [read_set(arguments.out, name) for name in arguments.sets]
    target = REPOSITORY / "docs" / "results.md"
    target.parent.mkdir(exist_ok=True)
    written = target.read_text() if target.is_file() else ""
    others = "".join(written.partition("\n<!-- ")[1:])  # tables of other scripts
    text = f"{_preamble(arguments.jobs, threads, arguments.remark)}\n\n{tables(results)}\n"
    target.write_text(text + others)
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
