"""How the cost of structure from motion and of training grows with the number of views.

    python benchmarks/views.py OUT [--views 20 50 100 200 500]

Structure from motion: pycolmap's synthetic data, every view seeing the same 80 points, so that
nothing but the number of views changes; the pipeline's own choice of pairs, matching with
verification, and mapping. Features are not extracted: they cost the same for every photo.
Training: a tiny ring of views (48 × 36 pixels), each matched with its ten neighbours on both sides;
what comes before the joint steps (adjustment to matches, first shape), and one joint step.

Times are CPU time of this process, one thread; other load hardly disturbs them. Writes
`views.json`, and the plot `docs/images/views.png`.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pipeline.formats.case import load_case
from pipeline.porf.config import TrainConfig
from pipeline.porf.trainer import train
from pipeline.progress import NullProgress
from pipeline.sfm.colmap import quiet
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.mapping import map_incrementally
from pipeline.sfm.matching import match_pairs
from pipeline.sfm.pairs import exhaustive_pairs, sparse_pairs
from tests.porf.tiny_case import TINY_OPTIONS, write_tiny_case

REPOSITORY = Path(__file__).resolve().parent.parent
POINTS = 80
NEIGHBOURS = 10
STEPS = 300


def spent(work: Callable[[], Any]) -> float:
    """Seconds of this process's CPU time."""
    before = time.process_time()
    work()
    return time.process_time() - before


def measure_sfm(folder: Path, views: int) -> dict[str, float]:
    """Pairs, matching and mapping of so many synthetic views."""
    config = SfmConfig(threads=1)
    path = folder / "database.db"
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_frames_per_rig = 1, views
    options.num_points3D = POINTS
    options.match_config = pycolmap.SyntheticDatasetMatchConfig.CHAINED
    pycolmap.set_random_seed(0)
    with pycolmap.Database.open(str(path)) as database:
        pycolmap.synthesize_dataset(options, database)
        database.clear_matches()
        database.clear_two_view_geometries()
        images = sorted(database.read_all_images(), key=lambda image: image.image_id)
    ids, names = [i.image_id for i in images], [i.name for i in images]
    pairs: list[tuple[int, int]] = []

    def choose() -> None:
        if views <= config.exhaustive_limit:
            pairs.extend(exhaustive_pairs(views))
        else:
            pairs.extend(sparse_pairs(path, ids, config.neighbours, 0))

    progress = NullProgress()
    times = {
        "choosing pairs": spent(choose),
        "matching": spent(lambda: match_pairs(path, names, pairs, folder, config, 0, progress)),
    }
    registered: list[int] = []

    def mapping() -> None:
        found = map_incrementally(path, folder, folder, views, config, 0, progress)
        registered.extend(model.num_reg_images() for model in found.models)

    times["mapping"] = spent(mapping)
    return {"pairs": len(pairs), "registered": max(registered, default=0), **times}


class JointClock(NullProgress):
    """CPU time of this process at every report of the joint training."""

    def __init__(self) -> None:
        self.marks: list[tuple[int, float]] = []

    def advance(self, phase: str, done: int, total: int, **figures: float) -> None:
        """See `Progress.advance`."""
        if phase == "joint":
            self.marks.append((done, time.process_time()))


def measure_training(folder: Path, views: int) -> dict[str, float]:
    """What comes before the joint steps, and a step."""
    write_tiny_case(folder / "case", views=views, neighbours=NEIGHBOURS)
    case = load_case(folder / "case", folder / "case")
    options = {**TINY_OPTIONS, "steps": STEPS, "device": "cpu", "pose": {"settle_share": 0}}
    for name in ("out", "work"):
        (folder / name).mkdir()
    clock, began = JointClock(), time.process_time()
    train(
        case,
        TrainConfig.model_validate(options),
        folder / "out",
        folder / "work",
        progress=clock,
    )
    (first, first_s), (last, last_s) = clock.marks[0], clock.marks[-1]
    step = (last_s - first_s) / (last - first)
    return {"before the joint steps": first_s - began - first * step, "one joint step": step}


PANELS = (
    (f"structure from motion, {POINTS} points", "CPU seconds", ("matching", "mapping"), 1),
    ("training, before the joint steps", "CPU seconds", ("before the joint steps",), 1),
    ("training, one joint step", "CPU milliseconds", ("one joint step",), 1000),
)


def draw(found: list[dict[str, Any]], path: Path) -> None:
    """The costs over the number of views, on logarithmic axes."""
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    views = [int(row["views"]) for row in found]
    for axes, (title, unit, names, scale) in zip(figure.subplots(1, 3), PANELS, strict=True):
        for name in names:
            axes.plot(views, [scale * row[name] for row in found], marker="o", label=name)
        axes.set_title(title, fontsize=10)
        axes.set_ylabel(unit)
        axes.set_xlabel("views (synthetic, tiny)")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(views, [str(v) for v in views])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend(frameon=False)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--views", type=int, nargs="+", default=[20, 50, 100, 200, 500])
    arguments = parser.parse_args()
    quiet()
    arguments.out.mkdir(parents=True, exist_ok=True)
    measure_training(_fresh(arguments.out / "warm-up"), 8)  # compiled kernels are loaded once
    found = []
    for views in arguments.views:
        folder = _fresh(arguments.out / str(views))
        row = {"views": views, **measure_sfm(folder, views), **measure_training(folder, views)}
        found.append({name: round(float(value), 4) for name, value in row.items()})
        print(found[-1], flush=True)
        (arguments.out / "views.json").write_text(json.dumps(found, indent=1))
        draw(found, REPOSITORY / "docs" / "images" / "views.png")


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
