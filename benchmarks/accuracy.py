"""What pose refinement reaches from different starts, beside classical bundle adjustment.

    python benchmarks/accuracy.py DATA RUNS OUT [--demo DEMO] [--seeds 0 1 2] [--joint CASE …]
        [--document [--remark TEXT]]

DATA holds the sets with `cameras.npz` (the truth), RUNS the finished runs of `real_sets.py`, DEMO
a finished `porf demo`. Every case is the run's own photos and verified matches with other starting
cameras. Rows are written to OUT/accuracy.json and, as a Markdown table, to OUT/accuracy.md; rows
that are there already are not computed again.

Starts: `sfm` the run's own cameras; `default K` COLMAP's default mapping on the run's features
(principal point at the centre); `true K` the same poses with the true intrinsics, the setting of
the paper; `disturbed` true poses turned by 0.5° and moved by 1%, `far off` by 5° and 5%; `drift`
true poses with a smooth error of 0.75° and 1% along the sequence, like a phone's track; `truth`
the true cameras.
Cases after --joint are trained by the whole stage, too.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from textwrap import fill
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.starts import Source, Start, open_source, rotation_error_deg, starts
from benchmarks.tables import markdown, put
from flows.settings import resolve
from pipeline.metrics.config import EvaluateConfig
from pipeline.porf.artifacts import TrainResult
from pipeline.porf.config import TrainConfig
from pipeline.porf.trainer import train
from pipeline.sfm.colmap import quiet
from pipeline.surface.config import MeshConfig
from stages.base import StageContext
from stages.registry import STAGES

Row = dict[str, Any]
RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results.md"
INTRODUCTION = """## Wrong cameras, refined

Made by `python benchmarks/accuracy.py DATA RUNS OUT`: known cameras are made wrong, or COLMAP's
defaults are taken, and refined from the run's own matches. Mean rotation error after a similarity
on the centres; a range is over the seeds. *Truth* starts at the true cameras: what the matches
make of them tells how well truth and photos agree. *Kept*: the gate found no better cameras than
those that came. *By matches* is the whole `train` stage with `train.steps=0`, *trained* with the
`demo` preset; processor seconds, and seconds by the wall. COLMAP's bundle adjustment has the same
start and matches: `triangulate_points` and `bundle_adjustment` with their default options and
fixed intrinsics, five times in turn; from *default K*, one adjustment of its own model with the
principal point set free. Of the refined poses the best is bold."""


def by_matches(start: Start, seed: int, out: Path) -> Row:
    """Rotation errors of one start: as it is, and after the `train` stage without joint steps."""
    case, truth = start.case, start.true_c2w
    began = time.process_time(), time.monotonic()
    result = train_stage(start, seed, out, steps=0)
    return {
        "views": len(truth),
        "start_deg": rotation_error_deg(case.cameras.c2w, truth),
        "matches_deg": rotation_error_deg(result.cameras.c2w, truth),
        "heldout_px": {c.name: c.error_px for c in result.candidates},
        "matches_accepted": result.accepted,
        "matches_cpu_s": time.process_time() - began[0],
        "matches_wall_s": time.monotonic() - began[1],
    }


def by_bundle_adjustment(start: Start) -> Row:
    """Rotation error after COLMAP's bundle adjustment from the same start and matches."""
    return {"ba_deg": rotation_error_deg(start.classical(), start.true_c2w)}


def trained(source: Source, start: Start, seed: int, out: Path) -> Row:
    """Rotation error after the whole `train` stage, and the surface's where the truth is known."""
    began = time.process_time(), time.monotonic()
    result = train_stage(start, seed, out)
    return {
        "joint_cpu_s": time.process_time() - began[0],
        "joint_wall_s": time.monotonic() - began[1],
        "joint_deg": rotation_error_deg(result.cameras.c2w, start.true_c2w),
        "joint_accepted": result.accepted,
        "joint_heldout_px": {c.name: c.error_px for c in result.candidates},
        **_surface(source, seed, out),
    }


def _surface(source: Source, seed: int, out: Path) -> Row:
    """Chamfer and F of the trained surface, where there is a true mesh."""
    mesh = source.truth.parent / "mesh_gt.ply"
    if not mesh.exists():
        return {}
    truth = {"ground_truth": source.truth, "ground_truth_mesh": mesh}
    inputs = {**source.artifacts, "train": out / "train"}
    for name, options in (("mesh", MeshConfig()), ("evaluate", EvaluateConfig())):
        folder, work = out / name, out / f"work_{name}"
        for needed in (folder, work):
            needed.mkdir(parents=True, exist_ok=True)
        STAGES[name].run(StageContext(inputs, truth, options, folder, work, seed))
        inputs[name] = folder
    metrics = json.loads((out / "evaluate" / "metrics.json").read_text())["metrics"]
    value = {metric["name"]: metric["value"] for metric in metrics}
    return {"chamfer": value["chamfer_of_radius"], "f_score": value["f_score"]}


def train_stage(start: Start, seed: int, out: Path, **options: Any) -> TrainResult:
    """The `train` stage with the demo's preset and these options, from its first step."""
    preset = resolve("demo").train.model_dump()
    config = TrainConfig.model_validate(
        {**preset, "epipolar": {"calibrate": start.calibrate}, **options}
    )
    with tempfile.TemporaryDirectory() as work:
        return train(start.case, config, out / "train", Path(work), seed)


COLUMNS: dict[str, tuple[str, str]] = {
    "start": ("start_deg", "{:.3f}°"),
    "by matches": ("matches_deg", "{:.3f}°"),
    "trained": ("joint_deg", "{:.3f}°"),
    "COLMAP's bundle adjustment": ("ba_deg", "{:.3f}°"),
    "Chamfer": ("chamfer", "{:.2f}%"),
    "by matches, CPU s": ("matches_cpu_s", "{:.0f}"),
    "trained, CPU s": ("joint_cpu_s", "{:.0f}"),
    "trained, s": ("joint_wall_s", "{:.0f}"),
}


REFINED = ("matches_deg", "joint_deg", "ba_deg")


def report(rows: dict[str, Row]) -> str:
    """The table, one line a case with the least and greatest figure over the seeds."""
    cases: dict[str, list[Row]] = {}
    for key, row in rows.items():
        cases.setdefault(key.rsplit(" @", 1)[0], []).append(row)
    lines = [["case", "seeds", "views", *COLUMNS, "held-out px, before → after"]]
    for case, found in cases.items():
        lines.append(
            [case, str(len(found)), str(found[0]["views"]), *_cells(found), _heldout(found)]
        )
    return markdown(lines)


def _cells(rows: list[Row]) -> list[str]:
    """A case's figures; of the refined rotations the best, to the digits shown, is bold."""
    cells = {key: _range(rows, key, form) for key, form in COLUMNS.values()}
    worst = {k: round(max(row[k] for row in rows if k in row), 3) for k in REFINED if k in rows[0]}
    for key, value in worst.items():
        if value == min(worst.values()):
            cells[key] = f"**{cells[key]}**"
    return list(cells.values())


def _range(rows: list[Row], key: str, form: str) -> str:
    values = [row[key] for row in rows if key in row]
    ends = [form.format(end(values)) for end in (min, max)] if values else ["–"]
    return "–".join(dict.fromkeys(ends))


def _heldout(rows: list[Row]) -> str:
    """Of the first seed: the cameras that came, and the last that were judged."""
    errors = list((rows[0].get("joint_heldout_px") or rows[0]["heldout_px"]).values())
    kept = rows[0].get("joint_accepted", rows[0]["matches_accepted"]) == "input"
    return f"{errors[0]:.4f} → {errors[-1]:.4f}" + (", kept" if kept else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--demo", type=Path, help="folder of a finished `porf demo`")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--joint", nargs="*", default=[], help="cases that are trained, e.g. 'dtu65 sfm'"
    )
    parser.add_argument("--document", action="store_true", help="write docs/results.md too")
    parser.add_argument("--remark", default="", help="a sentence about these runs for it")
    arguments = parser.parse_args()
    quiet()
    arguments.out.mkdir(parents=True, exist_ok=True)
    record = arguments.out / "accuracy.json"
    rows: dict[str, Row] = json.loads(record.read_text()) if record.exists() else {}
    for name, run, truth in _sources(arguments):
        source = open_source(run, truth)
        for start, make in starts(source, name, arguments.out / f"colmap_{name}").items():
            case = f"{name} {start}"
            for seed in arguments.seeds:
                key = f"{case} @{seed}"
                row = rows.setdefault(key, {})
                if "matches_deg" not in row:
                    row |= by_matches(make(seed), seed, arguments.out / key)
                if "ba_deg" not in row:
                    row |= by_bundle_adjustment(make(seed))
                if case in arguments.joint and "joint_deg" not in row:
                    row |= trained(source, make(seed), seed, arguments.out / key)
                record.write_text(json.dumps(rows, indent=1))
                print(key, row, flush=True)
    table = report(rows)
    (arguments.out / "accuracy.md").write_text(table)
    print(table)
    if arguments.document:
        text = fill(arguments.remark, 100)
        put(RESULTS, "benchmarks/accuracy.py", f"{INTRODUCTION}\n\n{text}\n\n{table}")


def _sources(arguments: argparse.Namespace) -> list[tuple[str, Path, Path]]:
    found = [
        (run.name, run, arguments.data / run.name / "cameras.npz")
        for run in sorted(arguments.runs.iterdir())
        if (arguments.data / run.name / "cameras.npz").exists()
    ]
    if arguments.demo:
        found.append(("demo", arguments.demo / "results", arguments.demo / "truth/cameras.npz"))
    return [entry for entry in found if (entry[1] / "views.json").exists()]


if __name__ == "__main__":
    main()
