"""Stage `scene`: registered photos to ideal views, cameras and a region of interest."""

import json

import numpy as np

from pipeline.formats.frame import frame_from_json
from pipeline.formats.views import save_views
from pipeline.imaging.records import load_ingest
from pipeline.sfm.colmap import quiet
from pipeline.sfm.scene import write_scene
from pipeline.sfm.views import load_model, registered_views, unregistered_reasons, view_records
from pipeline.store.files import write_json
from pipeline.verdict import Verdict
from stages.base import StageContext
from stages.case_import import import_case_scene


def run(ctx: StageContext) -> Verdict:
    """Write `image/`, `mask/`, `cameras_colmap.npz`, `views.json`, `scene.json`, `sparse.npz`."""
    if "case" in ctx.external:
        return import_case_scene(ctx)
    quiet()
    ingest = load_ingest(ctx.inputs["ingest"] / "ingest.json")
    model = load_model(ctx.inputs["sfm"])
    views = registered_views(model, ingest)
    sfm = json.loads((ctx.inputs["sfm"] / "sfm.json").read_text(encoding="utf-8"))
    region = (sfm.get("given_cameras") or {}).get("scale_mat")
    scene = write_scene(
        model,
        views,
        ctx.inputs["ingest"],
        ctx.out,
        ctx.config,
        ctx.seed,
        ctx.progress,
        frame_from_json(sfm.get("frame")),
        None if region is None else np.array(region),
    )
    reasons = unregistered_reasons(ctx.inputs["sfm"])
    save_views(ctx.out / "views.json", view_records(ingest, views, reasons))
    report = scene.report
    verdict = Verdict.from_warnings(
        scene.warnings,
        views=report["views"],
        size_px=f"{report['width']}x{report['height']}",
        region_source=report["region_source"],
        radius=report["radius"],
        unit=report["unit"],
        camera_distance_radii=round(report["camera_distance_radii"], 2),
        points_inside_fraction=round(report["points_inside_fraction"], 3),
    )
    write_json(
        ctx.out / "scene.json",
        {**report, "verdict": verdict.brief()},
    )
    return verdict
