"""Cameras against known truth and against plain pycolmap; writes tables.

    python benchmarks/sfm.py DATA OUT [SET …] [--threads N] [--matched FOLDER] [--remark TEXT]

DATA holds one folder a set: `photos/` (or the photos themselves), and where known `cameras.npz`
with `image_names.json`. Plain pycolmap is what its documentation begins with: `extract_features`,
`match_exhaustive`, `incremental_mapping`, default options but one camera where EXIF says so, and
the CPU, on the same upright photos of the same size, the largest model. Both are timed one after
the other; every set has a process of its own, and sets that are done are not computed again. The
tables are put into `docs/results.md` and `docs/cameras.md`, between their markers.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tables import put
from pipeline.errors import InputError
from pipeline.formats.idr import load_idr_cameras
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.similarity import umeyama
from pipeline.imaging.records import load_ingest
from pipeline.sfm.colmap import c2w_of, quiet
from stages.base import StageContext
from stages.registry import find_stage

REPOSITORY = Path(__file__).resolve().parent.parent
SETS = (
    "dtu65",
    "fountain",
    "temple",
    "render_plant",
    "render_bowl",
    "render_banana3d",
    "render_milk",
    "render_popcorn",
    "phone",
    "drone",
    "kermit",
    "dino",
    "flower",
)
GOALS_DEG = {
    "dtu65": 0.12,
    "fountain": 0.05,
    "temple": 0.16,
    "render_plant": 0.10,
    "render_bowl": 0.10,
    "render_banana3d": 0.10,
    "render_milk": 1.0,
    "render_popcorn": 1.0,
}
SAMPLED = 10
Cameras = dict[str, NDArray[np.float64]]
"""File name under `images/` → (4, 4) camera-to-world."""


class Spent(NamedTuple):
    """Wall and processor seconds; the latter are what other programs on a machine leave alone."""

    wall_s: float
    cpu_s: float

    @classmethod
    def now(cls) -> "Spent":
        """Both clocks."""
        return cls(time.monotonic(), time.process_time())

    def __add__(self, other: Any) -> "Spent":
        return Spent(self.wall_s + other.wall_s, self.cpu_s + other.cpu_s)

    def __sub__(self, other: Any) -> "Spent":
        return Spent(self.wall_s - other.wall_s, self.cpu_s - other.cpu_s)

    def __mul__(self, factor: Any) -> "Spent":
        return Spent(self.wall_s * factor, self.cpu_s * factor)


def measure_set(
    data: Path, out: Path, name: str, threads: int, matched: Path | None
) -> dict[str, Any]:
    """Ingest once, then plain pycolmap and our stage `sfm`; returns a row of the table."""
    folder = data / name
    photos = folder / "photos" if (folder / "photos").is_dir() else folder
    if matched is None:
        _stage("ingest", out, {"photos": photos}, {"threads": threads})
    else:
        _take_matched(matched / name, out)
    used = load_ingest(out / "ingest" / "ingest.json").used
    row: dict[str, Any] = {"set": name, "photos": len(used), "goal_deg": GOALS_DEG.get(name)}
    truth = _truth(folder, {Path(str(p.file)).name: p.name for p in used})
    one_camera = len({photo.camera for photo in used}) == 1
    images, spent = out / "ingest" / "images", Spent(0.0, 0.0)
    database = None
    if matched is not None:
        row["matched_before"] = True
        database, spent = matched / name / "working.db", _sample(images, one_camera, threads)
    started = Spent.now()
    plain = _plain(images, one_camera, threads, database)
    row["plain_s"], row["plain_cpu_s"] = Spent.now() - started + spent
    row["plain"] = _judge(plain, truth)
    started = Spent.now()
    try:
        _stage("sfm", out, {}, {"threads": threads})
        row["ours"] = _judge(_cameras(out / "sfm" / "sparse"), truth)
        report = json.loads((out / "sfm" / "sfm.json").read_text())
        row["unit"], row["remarks"] = report["frame"]["unit"], report["verdict"]["reasons"]
        row["contradicting"] = report["consistency"]["contradicting_share"]
        row["lookalikes"] = report["lookalikes"]
        sigma = report["rotation_uncertainty"]
        row["expected_deg"] = None if sigma is None else sigma["median_deg"]
    except InputError as error:
        row["refused"] = error.message
    row["ours_s"], row["ours_cpu_s"] = Spent.now() - started + spent
    if row.get("lookalikes"):
        regardless = {"threads": threads, "on_contradiction": "warn"}
        first = _stage("sfm", out, {}, regardless, folder="first")
        row["first_mapping_deg"] = _judge(_cameras(first / "sparse"), truth)["rotation_deg"]
    return row


def _take_matched(earlier: Path, out: Path) -> None:
    shutil.copytree(earlier / "ingest", out / "ingest")
    (out / "work" / "sfm" / "whole").mkdir(parents=True)
    shutil.copyfile(earlier / "working.db", out / "work" / "sfm" / "whole" / "working.db")


def _sample(images: Path, one_camera: bool, threads: int) -> Spent:
    """What features and matches of all photos cost, from ten of them and their 45 pairs."""
    names = sorted(path.name for path in images.iterdir())
    some = names[:: max(1, len(names) // SAMPLED)][:SAMPLED]
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch) / "database.db"
        started = Spent.now()
        _extract(database, images, one_camera, threads, some)
        between = Spent.now()
        _match(database, threads)
        ended = Spent.now()
    pairs = len(names) * (len(names) - 1) / (len(some) * (len(some) - 1))
    return (between - started) * (len(names) / len(some)) + (ended - between) * pairs


def _stage(
    name: str, out: Path, external: dict[str, Path], options: dict[str, Any], folder: str = ""
) -> Path:
    stage = find_stage(name)
    target = out / (folder or name)
    target.mkdir(parents=True)
    (out / "work" / name).mkdir(parents=True, exist_ok=True)
    inputs = {n: out / n for n in stage.inputs}
    config = stage.config_type.model_validate(options)
    import_module(f"stages.{name}").run(
        StageContext(
            inputs=inputs,
            external=external,
            config=config,
            out=target,
            work=out / "work" / name,
        )
    )
    return target


def _plain(images: Path, one_camera: bool, threads: int, matched: Path | None) -> Cameras:
    """Cameras of pycolmap's three calls, or of the last one on a database that has the matches."""
    import pycolmap  # noqa: PLC0415

    quiet()
    mapping = pycolmap.IncrementalPipelineOptions(num_threads=threads)
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch) / "database.db"
        try:
            if matched is None:
                _extract(database, images, one_camera, threads, [])
                _match(database, threads)
            else:
                shutil.copyfile(matched, database)
            models = pycolmap.incremental_mapping(database, images, scratch, options=mapping)
        except RuntimeError:
            return {}
        best = max(models.values(), key=lambda m: m.num_reg_images(), default=None)
        return {} if best is None else _of_model(best)


def _extract(
    database: Path, images: Path, one_camera: bool, threads: int, names: list[str]
) -> None:
    import pycolmap  # noqa: PLC0415

    quiet()
    pycolmap.extract_features(
        database,
        images,
        names,
        camera_mode=pycolmap.CameraMode.SINGLE if one_camera else pycolmap.CameraMode.AUTO,
        extraction_options=pycolmap.FeatureExtractionOptions(num_threads=threads, use_gpu=False),
    )


def _match(database: Path, threads: int) -> None:
    import pycolmap  # noqa: PLC0415

    options = pycolmap.FeatureMatchingOptions(num_threads=threads, use_gpu=False)
    pycolmap.match_exhaustive(database, matching_options=options)


def _cameras(folder: Path) -> Cameras:
    import pycolmap  # noqa: PLC0415

    return _of_model(pycolmap.Reconstruction(str(folder)))


def _of_model(model: Any) -> Cameras:
    return {model.image(i).name: c2w_of(model.image(i)) for i in model.reg_image_ids()}


def _truth(folder: Path, photo_of: dict[str, str]) -> Cameras:
    if not (folder / "cameras.npz").is_file():
        return {}
    names = json.loads((folder / "image_names.json").read_text())
    c2w = load_idr_cameras(folder / "cameras.npz").c2w
    return {file: c2w[names.index(photo)] for file, photo in photo_of.items() if photo in names}


def _judge(found: Cameras, truth: Cameras) -> dict[str, Any]:
    """Views, and the mean rotation error after Umeyama on the centres."""
    shared = sorted(set(found) & set(truth))
    judged: dict[str, Any] = {"views": len(found), "rotation_deg": None}
    if len(shared) >= 3:
        ours, true = np.stack([found[n] for n in shared]), np.stack([truth[n] for n in shared])
        aligned = umeyama(ours[:, :3, 3], true[:, :3, 3]).apply_c2w(ours)
        errors = rotation_angles_deg(aligned[:, :3, :3], true[:, :3, :3])
        judged["rotation_deg"] = float(errors.mean())
    return judged


def table(rows: list[dict[str, Any]]) -> str:
    """Views, rotations and time of all sets, and what the runs said."""
    head = (
        "| set | photos | plain: views | plain: rotation | ours: views | ours: rotation | goal |"
        " expected, at least | time, ours / plain |\n|" + "---|" * 9
    )
    lines = [head]
    for row in rows:
        ours = row.get("ours")
        mark = "*" if row.get("matched_before") else ""
        lines.append(
            f"| {row['set']} | {row['photos']} | {row['plain']['views']} |"
            f" {_degrees(row['plain']['rotation_deg'])} | {ours['views'] if ours else 'refused'} |"
            f" {_degrees(ours['rotation_deg'] if ours else None)} | {_degrees(row['goal_deg'])} |"
            f" {_degrees(row.get('expected_deg'))} |"
            f" {row['ours_cpu_s'] / row['plain_cpu_s']:.2f}{mark} |"
        )
    said = [
        f"- **{row['set']}**: {text}"
        for row in rows
        for text in [*row.get("remarks", []), *([row["refused"]] if "refused" in row else [])]
    ]
    metres = [row["set"] for row in rows if row.get("unit") == "m"]
    if metres:
        said.append(f"- In metres: {', '.join(metres)}.")
    return "\n".join(lines) + "\n\nWhat the runs said:\n\n" + ("\n".join(said) or "Nothing.")


def contradictions(rows: list[dict[str, Any]]) -> str:
    """What contradicting pairs tell, and what setting look-alikes aside changes."""
    lines = [
        "| set | views | contradicting pairs | our first mapping | look-alikes set aside |\n|"
        + "---|" * 5
    ]
    for row in rows:
        if "ours" not in row or row["ours"]["rotation_deg"] is None:
            continue
        solved, last = row.get("lookalikes"), _degrees(row["ours"]["rotation_deg"])
        share = solved["contradicting_share_before"] if solved else row["contradicting"]
        first = _degrees(row.get("first_mapping_deg")) if solved else last
        lines.append(
            f"| `{row['set']}` | {row['ours']['views']} of {row['photos']} | {share:.0%} |"
            f" {first} | {last if solved else 'not needed'} |"
        )
    return "\n".join(lines)


def _degrees(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}°"


def _explanation(threads: int, remark: str, sampled: bool) -> str:
    machine = platform.machine()
    text = f"""Made by `python benchmarks/sfm.py DATA OUT` on {machine}, CPU only, {threads}
thread(s). {remark}

- Rotation: mean error after a similarity fitted to the camera centres (Umeyama).
- Plain: pycolmap's `extract_features`, `match_exhaustive`, `incremental_mapping` with default
  options on the same upright photos, the largest model.
- Expected: what a run without truth says of itself (1 σ, median over the views); it reckons with
  the scatter of the matches only, and is a lower bound.
- Time: ratio of processor seconds in one run, plain first, ours second.
"""
    if sampled:
        text += (
            "- \\*: features and matches were there from an earlier run of the stage; the time of"
            f" both\n  is counted for both, scaled up from {SAMPLED} photos and their pairs.\n"
        )
    return text


def _write(rows: list[dict[str, Any]], threads: int, remark: str) -> None:
    sampled = any(row.get("matched_before") for row in rows)
    text = f"## Cameras\n\n{_explanation(threads, remark, sampled)}\n{table(rows)}"
    put(REPOSITORY / "docs" / "results.md", "benchmarks/sfm.py", text)
    put(REPOSITORY / "docs" / "cameras.md", "benchmarks/sfm.py", contradictions(rows))


def main() -> None:
    """Measure the sets asked for, one process a set, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--remark", default="", help="a sentence about these runs")
    parser.add_argument(
        "--matched",
        type=Path,
        help="folder with `SET/ingest` and `SET/working.db` of finished stages: features and"
        " matches are taken from there, and their time, counted for both, from a sample",
    )
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.sets:
        stamp = arguments.out / f"{name}.json"
        if not stamp.is_file():
            if arguments.one:
                with tempfile.TemporaryDirectory(prefix="porf-sfm-") as scratch:
                    row = measure_set(
                        arguments.data, Path(scratch), name, arguments.threads, arguments.matched
                    )
                stamp.parent.mkdir(parents=True, exist_ok=True)
                stamp.write_text(json.dumps(row, indent=1))
                return
            command = [sys.executable, __file__, str(arguments.data), str(arguments.out), name]
            command += ["--threads", str(arguments.threads), "--one"]
            command += ["--matched", str(arguments.matched)] if arguments.matched else []
            subprocess.run(command, check=True, cwd=REPOSITORY)
        rows.append(json.loads(stamp.read_text()))
        print(json.dumps(rows[-1]), flush=True)
    if not arguments.one:
        _write(rows, arguments.threads, arguments.remark)


if __name__ == "__main__":
    main()
