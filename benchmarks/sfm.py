"""Cameras against known truth and against plain pycolmap; writes `docs/sfm.md`.

    python benchmarks/sfm.py DATA OUT [SET …] [--threads N] [--remark TEXT]

DATA holds one folder a set: `photos/` (or the photos themselves), and where known `cameras.npz`
with `image_names.json`. Plain pycolmap is what its documentation begins with: `extract_features`,
`match_exhaustive`, `incremental_mapping`, default options but one camera where EXIF says so, and
the CPU, on the same upright photos of the same size, the largest model. Both are timed one after
the other; every set has a process of its own, and sets that are done are not computed again.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
Cameras = dict[str, NDArray[np.float64]]
"""File name under `images/` → (4, 4) camera-to-world."""


def measure_set(data: Path, out: Path, name: str, threads: int) -> dict[str, Any]:
    """Ingest once, then plain pycolmap and our stage `sfm`; returns a row of the table."""
    folder = data / name
    photos = folder / "photos" if (folder / "photos").is_dir() else folder
    _stage("ingest", out, {"photos": photos}, {"threads": threads})
    used = load_ingest(out / "ingest" / "ingest.json").used
    row: dict[str, Any] = {"set": name, "photos": len(used), "goal_deg": GOALS_DEG.get(name)}
    truth = _truth(folder, {Path(str(p.file)).name: p.name for p in used})
    one_camera = len({photo.camera for photo in used}) == 1
    started = time.monotonic(), time.process_time()
    plain = _plain(out / "ingest" / "images", one_camera, threads)
    row["plain_s"], row["plain_cpu_s"] = _since(started)
    row["plain"] = _judge(plain, truth)
    started = time.monotonic(), time.process_time()
    try:
        _stage("sfm", out, {}, {"threads": threads})
        row["ours"] = _judge(_cameras(out / "sfm" / "sparse"), truth)
        report = json.loads((out / "sfm" / "sfm.json").read_text())
        row["unit"], row["remarks"] = report["frame"]["unit"], report["verdict"]["reasons"]
        row["contradicting"] = report["consistency"]["contradicting_share"]
    except InputError as error:
        row["refused"] = error.message
    row["ours_s"], row["ours_cpu_s"] = _since(started)
    return row


def _since(started: tuple[float, float]) -> tuple[float, float]:
    """Wall and processor seconds; the latter are what other programs on the machine leave alone."""
    return time.monotonic() - started[0], time.process_time() - started[1]


def _stage(name: str, out: Path, external: dict[str, Path], options: dict[str, Any]) -> None:
    stage = find_stage(name)
    (out / name).mkdir(parents=True)
    (out / "work" / name).mkdir(parents=True)
    inputs = {n: out / n for n in stage.inputs}
    config = stage.config_type.model_validate(options)
    import_module(f"stages.{name}").run(
        StageContext(
            inputs=inputs,
            external=external,
            config=config,
            out=out / name,
            work=out / "work" / name,
        )
    )


def _plain(images: Path, one_camera: bool, threads: int) -> Cameras:
    import pycolmap  # noqa: PLC0415

    quiet()
    mode = pycolmap.CameraMode.SINGLE if one_camera else pycolmap.CameraMode.AUTO
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch) / "database.db"
        extraction = pycolmap.FeatureExtractionOptions(num_threads=threads, use_gpu=False)
        matching = pycolmap.FeatureMatchingOptions(num_threads=threads, use_gpu=False)
        mapping = pycolmap.IncrementalPipelineOptions(num_threads=threads)
        try:
            pycolmap.extract_features(
                database,
                images,
                camera_mode=mode,
                extraction_options=extraction,
            )
            pycolmap.match_exhaustive(database, matching_options=matching)
            models = pycolmap.incremental_mapping(database, images, scratch, options=mapping)
        except RuntimeError:
            return {}
        best = max(models.values(), key=lambda m: m.num_reg_images(), default=None)
        return {} if best is None else _of_model(best)


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
    """The Markdown table."""
    head = (
        "| set | photos | plain: views | plain: rotation | ours: views | ours: rotation | goal |"
        " time, ours / plain | pairs that contradict |\n|" + "---|" * 9
    )
    lines = [head]
    for row in rows:
        ours = row.get("ours")
        views = str(ours["views"]) if ours else "refused"
        share = "–" if "contradicting" not in row else f"{row['contradicting']:.0%}"
        lines.append(
            f"| {row['set']} | {row['photos']} | {row['plain']['views']} |"
            f" {_degrees(row['plain']['rotation_deg'])} | {views} |"
            f" {_degrees(ours['rotation_deg'] if ours else None)} | {_degrees(row['goal_deg'])} |"
            f" {row['ours_s'] / row['plain_s']:.2f} | {share} |"
        )
    said = [
        f"- **{row['set']}**: {text}"
        for row in rows
        for text in [*row.get("remarks", []), *([row["refused"]] if "refused" in row else [])]
    ]
    metres = [row["set"] for row in rows if row.get("unit") == "m"]
    if metres:
        said.append(f"- In metres: {', '.join(metres)}.")
    return "\n".join(lines) + "\n\nWhat the runs said:\n\n" + ("\n".join(said) or "nothing") + "\n"


def _degrees(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}°"


def _preamble(threads: int, remark: str) -> str:
    return f"""# Cameras: measured

Made by `python benchmarks/sfm.py DATA OUT` on {platform.machine()}, CPU only, {threads} thread(s).
Rotation: mean error after a similarity fitted to the camera centres (Umeyama). Plain: pycolmap's
`extract_features`, `match_exhaustive`, `incremental_mapping` with default options on the same
upright photos, the largest model. The time ratio is of one run, plain first, ours second.
{remark}

"""


def main() -> None:
    """Measure the sets asked for, one process a set, and write `docs/sfm.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--remark", default="", help="a sentence about these runs")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.sets:
        stamp = arguments.out / f"{name}.json"
        if not stamp.is_file():
            if arguments.one:
                with tempfile.TemporaryDirectory(prefix="porf-sfm-") as scratch:
                    row = measure_set(arguments.data, Path(scratch), name, arguments.threads)
                stamp.parent.mkdir(parents=True, exist_ok=True)
                stamp.write_text(json.dumps(row, indent=1))
                return
            command = [sys.executable, __file__, str(arguments.data), str(arguments.out), name]
            command += ["--threads", str(arguments.threads), "--one"]
            subprocess.run(command, check=True, cwd=REPOSITORY)
        rows.append(json.loads(stamp.read_text()))
        print(json.dumps(rows[-1]), flush=True)
    if not arguments.one:
        target = REPOSITORY / "docs" / "sfm.md"
        target.write_text(_preamble(arguments.threads, arguments.remark) + table(rows))
        print(f"wrote {target}")


if __name__ == "__main__":
    main()
