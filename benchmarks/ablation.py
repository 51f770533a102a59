"""One row of the ablation in `docs/training.md`: train, mesh and evaluate a finished run anew.

    python benchmarks/ablation.py RUN OUT [--set train.option=value …]

RUN is an output folder of `porf run` with ground truth; its photos, cameras and matches are used as
they are. OUT gets the artifacts. The row is printed as a line of Markdown; times are CPU seconds.
"""

import argparse
import json
import time
from pathlib import Path

from flows.case_folder import CaseFolder
from flows.settings import resolve
from stages.base import StageContext
from stages.registry import STAGES

FIGURES = ("chamfer_of_radius", "f_score", "psnr_heldout", "rotation_mean_refined")
ANEW = ("train", "mesh", "evaluate")


def run_row(run: Path, out: Path, overrides: list[str]) -> str:
    """Compute the row's stages from the run's artifacts and format their figures."""
    folder = CaseFolder(run)
    record = folder.load_record()
    settings = resolve(overrides=overrides)
    artifacts = {name: folder.store.artifact(name, key) for name, key in record.keys.items()}
    external = {role: Path(path) for role, path in record.external.items() if role != "photos"}
    seconds = {}
    for name in ANEW:
        stage = STAGES[name]
        artifacts[name], work = out / name, out / "work" / name
        artifacts[name].mkdir(parents=True)
        work.mkdir(parents=True)
        began = time.process_time()
        stage.run(
            StageContext(
                inputs={needed: artifacts[needed] for needed in stage.inputs},
                external={role: external[role] for role in stage.external if role in external},
                config=getattr(settings, name),
                out=artifacts[name],
                work=work,
                seed=settings.seed,
            )
        )
        seconds[name] = time.process_time() - began
    measured = json.loads((artifacts["evaluate"] / "metrics.json").read_bytes())["metrics"]
    found = {m["name"]: f"{m['value']:.4g} {m['unit']}" for m in measured}
    cells = [run.name, " ".join(overrides), *(found.get(name, "–") for name in FIGURES)]
    return " | ".join(["", *cells, f"{seconds['train']:.0f} s", ""]).strip()


def main() -> None:
    """Print one row."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    arguments = parser.parse_args()
    print(run_row(arguments.run, arguments.out, arguments.overrides))


if __name__ == "__main__":
    main()
