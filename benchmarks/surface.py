"""What a surface gains from its cameras and from masks; a table of sets with true meshes.

    python benchmarks/surface.py DATA OUT [--sets SET …] [--cameras NAME …] [--masks without with]
        [--steps N] [--set STAGE.OPTION=VALUE …] [--runs FOLDER] [--anew] [--document]

A SET is a folder in DATA, or any path: `photos/` or the photos themselves, and, there or in
`truth/`, what is known of `cameras.npz`, `mesh_gt.ply` and `mask/`. Every row is the pipeline's own
stages in a store beneath OUT/SET, so that rows share what they have in common, and a row that is
there is not computed again; finished runs beneath RUNS lend the artifacts that fit. One thread.

Cameras:
    plain     COLMAP's default mapping of the same features, principal point at the image centre;
              held fixed
    sfm       the pipeline's calibrated SfM, held fixed
    matches   the same, adjusted to the matches before training, then fixed
    joint     the default: adjusted, then trained together with the surface
    true      the true cameras of all photos, held fixed
Masks restrict training and mesh to the object, not the features: cameras are the same without them.

Rows go to OUT/surface.json, the table to OUT/surface.md and with --document into docs/results.md.
"""

import argparse
import json
import os
import resource
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.plain_colmap import default_model
from benchmarks.tables import markdown, put
from flows.case_folder import CaseFolder
from flows.execute import make_artifact
from flows.listeners import SilentReporter, StageListener
from flows.plan import make_recipe
from flows.request import RunRequest, open_run
from flows.settings import resolve
from flows.stage_host import close_idle
from pipeline.sfm.colmap import quiet
from pipeline.store.manifest import Manifest
from stages.registry import STAGES, route

REPOSITORY = Path(__file__).resolve().parent.parent
SETS = ("render_plant", "render_bowl", "render_banana3d")
LENT = ("ingest", "sfm", "scene", "matches")
TRAINED = ("train", "mesh", "evaluate")
FIXED = "train.pose.model=fixed"
GIVEN = "sfm.missing_cameras=skip"
CAMERAS = {
    "plain": (FIXED, GIVEN),
    "sfm": (FIXED,),
    "matches": ("train.pose.joint_start=1",),
    "joint": (),
    "true": (FIXED, GIVEN),
}
"""Options that make each choice of cameras."""
MASKS = {"without": False, "with": True}
FIGURES = {
    "rotation_deg": "rotation_mean_refined",
    "chamfer": "chamfer_of_radius",
    "accuracy": "surface_accuracy_of_radius",
    "completeness": "surface_completeness_of_radius",
    "f_score": "f_score",
    "silhouette_iou": "silhouette_iou",
    "psnr_heldout": "psnr_heldout",
}
"""Figures of a row and their names in `metrics.json`."""
GOALS = {
    "render_plant": (1.1, 0.70),
    "render_bowl": (0.6, 0.85),
    "render_banana3d": (0.45, 0.92),
}
OPENMVS = {
    "render_plant": ((3.62, 0.46), (1.72, 0.58)),
    "render_bowl": ((2.01, 0.61), (0.89, 0.77)),
    "render_banana3d": ((0.68, 0.80), (0.67, 0.86)),
}
"""Chamfer and F of OpenMVS given the true cameras, its best settings, without and with masks."""
Row = dict[str, Any]


@dataclass(frozen=True)
class PhotoSet:
    """Photos with what is known of them."""

    name: str
    photos: Path
    masks: Path | None
    truth: dict[str, Path]

    @classmethod
    def open(cls, folder: Path) -> "PhotoSet":
        """Find the parts of a set in its folder."""
        found = {}
        for role, file in (("ground_truth", "cameras.npz"), ("ground_truth_mesh", "mesh_gt.ply")):
            for path in (folder / file, folder / "truth" / file):
                if path.is_file():
                    found[role] = path
        photos, masks = folder / "photos", folder / "mask"
        return cls(
            folder.name,
            photos if photos.is_dir() else folder,
            masks if masks.is_dir() else None,
            found,
        )


@dataclass(frozen=True)
class Bench:
    """Where rows are computed and with which options.

    Attributes:
        out: folder of all sets.
        overrides: options of every row.
        anew: train rows again that are there.
    """

    out: Path
    overrides: list[str]
    anew: bool

    def row(self, photo_set: PhotoSet, cameras: str, masked: bool) -> Row:
        """Bring one row's stages up to date and read their figures."""
        request = self._request(photo_set, cameras, masked)
        made, train_cpu_s = bring_up_to_date(request, self.anew)
        store = CaseFolder(request.out).store
        evaluated = store.artifact("evaluate", made["evaluate"].key) / "metrics.json"
        measured = {m["name"]: m["value"] for m in json.loads(evaluated.read_bytes())["metrics"]}
        trained = store.artifact("train", made["train"].key) / "train.json"
        views = json.loads((store.artifact("scene", made["scene"].key) / "views.json").read_bytes())
        return {
            "views": sum(view["registered"] for view in views),
            "photos": len(views),
            **{name: measured.get(metric) for name, metric in FIGURES.items()},
            "accepted": json.loads(trained.read_bytes())["figures"].get("accepted_cameras"),
            "train_cpu_s": train_cpu_s,
        }

    def _request(self, photo_set: PhotoSet, cameras: str, masked: bool) -> RunRequest:
        external = dict(photo_set.truth)
        if masked and photo_set.masks is not None:
            external["masks"] = photo_set.masks
        if cameras == "true":
            external["cameras"] = photo_set.truth["ground_truth"]
        if cameras == "plain":
            external["cameras"] = self._plain(photo_set)
        options = ["sfm.use_masks=false", *CAMERAS[cameras], *self.overrides]
        return RunRequest(
            photos=photo_set.photos,
            out=self.out / photo_set.name,
            settings=resolve(overrides=options).model_dump(mode="json"),
            external=external,
            stop="evaluate",
        )

    def _plain(self, photo_set: PhotoSet) -> Path:
        """COLMAP's model of the features that the pipeline found in the photos."""
        request = self._request(photo_set, "sfm", False).model_copy(update={"stop": "sfm"})
        made, _ = bring_up_to_date(request, anew=False)
        store = CaseFolder(request.out).store
        sfm, ingest = (store.artifact(name, made[name].key) for name in ("sfm", "ingest"))
        return default_model(sfm, ingest / "images", self.out / f"plain_{photo_set.name}")


def bring_up_to_date(request: RunRequest, anew: bool) -> tuple[dict[str, Manifest], float]:
    """Make what is missing of a run, without a Prefect server.

    Returns:
        The manifests by stage, and CPU seconds of training where it was made just now, else 0.
    """
    folder, settings, choice, external = open_run(request)
    stages, made, train_cpu_s = route(request.paths), dict[str, Manifest](), 0.0
    for name in choice.wanted:
        stage = stages[name]
        contents = {needed: made[needed].content for needed in stage.inputs}
        before = _children_cpu_s()
        made[name] = make_artifact(
            folder,
            make_recipe(stage, settings, contents, external),
            {needed: made[needed] for needed in stage.inputs},
            request.paths,
            getattr(settings, name).model_dump(mode="json"),
            anew and name in TRAINED,
            StageListener(name, SilentReporter()),
        )
        close_idle()  # a process's time counts once it has ended
        if name == "train":
            train_cpu_s = _children_cpu_s() - before
    return made, train_cpu_s


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def lend(runs: Path, out: Path, name: str) -> None:
    """Link the artifacts before training of a finished run into the set's store."""
    store = CaseFolder(runs / name).store
    for stage in LENT:
        for artifact in (store.root / "store" / stage).glob("[!.]*"):
            target = CaseFolder(out / name).store.artifact(stage, artifact.name)
            if not target.exists():
                shutil.copytree(artifact, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copyfile(source, target)


def row_key(name: str, cameras: str, masked: bool, overrides: list[str]) -> str:
    """A row's name in the record; holds what the row was computed with."""
    versions = " ".join(f"{stage}{STAGES[stage].version}" for stage in TRAINED)
    masks = "masks" if masked else "no masks"
    return " | ".join([name, cameras, masks, " ".join(sorted(overrides)) or "defaults", versions])


def as_line(photo_set: str, cameras: str, masked: bool, row: Row, overrides: list[str]) -> str:
    """A row with all its figures, as `docs/training.md` has them."""
    cells = [photo_set, cameras, "masks" if masked else "no masks", " ".join(overrides)]
    cells += [f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float)]
    return " | ".join(["", *cells, f"{row['views']} of {row['photos']} views", ""]).strip()


def table(rows: dict[tuple[str, str, bool], Row]) -> str:
    """One line a set and choice of cameras, columns without and with masks."""
    head = ["set", "cameras", "views", "rotation"]
    head += ["Chamfer", "accuracy", "completeness", "F at 1%"]
    head += ["with masks: Chamfer", "F at 1%", "silhouette IoU"]
    lines = [head]
    for name in dict.fromkeys(key[0] for key in rows):
        for cameras in CAMERAS:
            bare, masked = (rows.get((name, cameras, m), {}) for m in (False, True))
            known = bare or masked
            if known:
                lines.append(
                    [
                        f"`{name}`", cameras, f"{known['views']} of {known['photos']}",
                        _cell(known, "rotation_deg", "{:.3f}°"),
                        *(_cell(bare, f) for f in ("chamfer", "accuracy", "completeness")),
                        _cell(bare, "f_score", scale=0.01),
                        _cell(masked, "chamfer"), _cell(masked, "f_score", scale=0.01),
                        _cell(masked, "silhouette_iou", "{:.3f}", 0.01),
                    ]
                )  # fmt: skip
        lines += _references(name)
    return markdown(lines)


def _references(name: str) -> list[list[str]]:
    lines = []
    if name in OPENMVS:
        (bare, bare_f), (masked, masked_f) = OPENMVS[name]
        lines.append(
            [f"`{name}`", "OpenMVS, true cameras", "", "", f"{bare:.2f}%", "", "", f"{bare_f:.2f}",
             f"{masked:.2f}%", f"{masked_f:.2f}", ""]
        )  # fmt: skip
    if name in GOALS:
        goal, goal_f = GOALS[name]
        lines.append(
            [f"`{name}`", "goal of joint", "", "", f"{goal:.2f}%", "", "", f"{goal_f:.2f}"]
            + [""] * 3
        )
    return lines


def _cell(row: Row, figure: str, form: str = "{:.2f}", scale: float = 1.0) -> str:
    value = row.get(figure)
    percent = "%" if figure in ("chamfer", "accuracy", "completeness") else ""
    return "–" if value is None else form.format(scale * value) + percent


def document_text(rows: dict[tuple[str, str, bool], Row], overrides: list[str], remark: str) -> str:
    """The section of `docs/results.md`."""
    options = f" with `{' '.join(overrides)}`" if overrides else " with the `fast` preset"
    versions = ", ".join(f"{stage} {STAGES[stage].version}" for stage in TRAINED)
    return f"""## Surfaces by cameras and masks

Made by `python benchmarks/surface.py DATA OUT --document`{options}, one seed, one thread; versions
of the stages: {versions}. {remark}

Chamfer distance, accuracy and completeness in percent of the object's radius, F at 1% of it: mesh
laid onto the true one by the camera centres (similarity), measured where rays of the true cameras
meet the object, on the true surface that at least two of the registered views see; the table does
not count. Rotation: mean error of the cameras that the surface was trained with. Silhouette IoU:
mesh against masks, mean over the views. Cameras: *plain* is COLMAP's default mapping of the same
features, *sfm* the pipeline's own, *matches* the same adjusted to the matches before training, all
held fixed; *joint* is the default; *true* the true cameras of all photos.

{table(rows)}"""


def main() -> None:
    """Compute the rows asked for and write the tables."""
    arguments = _arguments()
    quiet()
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)
    overrides = list(arguments.overrides)
    if arguments.steps:
        overrides.append(f"train.steps={arguments.steps}")
    threads = [f"sfm.threads={arguments.threads}", f"ingest.threads={arguments.threads}"]
    bench = Bench(arguments.out.absolute(), [*overrides, *threads], arguments.anew)
    bench.out.mkdir(parents=True, exist_ok=True)
    record = bench.out / "surface.json"
    stored: dict[str, Row] = json.loads(record.read_text()) if record.exists() else {}
    shown: dict[tuple[str, str, bool], Row] = {}
    for chosen in arguments.sets:
        photo_set = PhotoSet.open(arguments.data / chosen)
        if arguments.runs and (arguments.runs / photo_set.name).is_dir():
            lend(arguments.runs, bench.out, photo_set.name)
        for cameras in arguments.cameras:
            for masked in [MASKS[choice] for choice in arguments.masks]:
                if masked and photo_set.masks is None:
                    continue
                key = row_key(photo_set.name, cameras, masked, overrides)
                if key not in stored or arguments.anew:
                    stored[key] = bench.row(photo_set, cameras, masked)
                    record.write_text(json.dumps(stored, indent=1))
                shown[photo_set.name, cameras, masked] = stored[key]
                print(as_line(photo_set.name, cameras, masked, stored[key], overrides), flush=True)
    text = document_text(shown, overrides, arguments.remark)
    (bench.out / "surface.md").write_text(text)
    print(table(shown))
    if arguments.document:
        put(REPOSITORY / "docs" / "results.md", "benchmarks/surface.py", text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SETS), metavar="SET")
    parser.add_argument("--cameras", nargs="+", choices=list(CAMERAS), default=list(CAMERAS))
    parser.add_argument("--masks", nargs="+", choices=list(MASKS), default=list(MASKS))
    parser.add_argument("--steps", type=int, help="of training; default: the preset's")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--runs", type=Path, help="folder of finished runs, one a set")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--remark", default="", help="a sentence about these runs")
    parser.add_argument("--anew", action="store_true", help="train rows that are there again")
    parser.add_argument("--document", action="store_true", help="write docs/results.md too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
