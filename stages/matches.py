"""Stage `matches`: verified two-view matches in the ideal views' pixels."""

import json

import numpy as np

from pipeline.formats.idr import load_idr_cameras
from pipeline.formats.matches import save_matches
from pipeline.imaging.records import load_ingest
from pipeline.sfm.colmap import quiet
from pipeline.sfm.config import MatchesConfig
from pipeline.sfm.match_export import both_directions, collect_matches
from pipeline.sfm.views import load_model, registered_views
from pipeline.store.files import write_json
from pipeline.verdict import Verdict
from stages.base import StageContext
from stages.case_import import import_case_matches


def run(ctx: StageContext) -> Verdict:
    """Write `colmap_matches/` and `matches.json`."""
    if "case" in ctx.external:
        return import_case_matches(ctx)
    quiet()
    config: MatchesConfig = ctx.config
    scene_dir, sfm_dir = ctx.inputs["scene"], ctx.inputs["sfm"]
    model = load_model(sfm_dir)
    views = registered_views(model, load_ingest(ctx.inputs["ingest"] / "ingest.json"))
    scene = json.loads((scene_dir / "scene.json").read_text())
    cameras = load_idr_cameras(scene_dir / "cameras_colmap.npz")
    pairs = collect_matches(
        sfm_dir / "database.db",
        model,
        views,
        cameras.K,
        (scene["width"], scene["height"]),
        config,
        ctx.seed,
    )
    save_matches(ctx.out / "colmap_matches", both_directions(pairs, len(views)))
    counts = np.array([len(pair.xyxy_px) for pair in pairs])
    heldout = int(sum(pair.heldout.sum() for pair in pairs))
    linked = {view for pair in pairs for view in (pair.i, pair.j)}
    lonely = [view.photo.name for view in views if view.index not in linked]
    figures = {
        "pairs": len(pairs),
        "matches": int(counts.sum()),
        "heldout": heldout,
        "matches_per_pair_median": float(np.median(counts)),
        "views_without_matches": lonely,
    }
    write_json(ctx.out / "matches.json", {**figures, "options": config.model_dump(mode="json")})
    warnings = [f"no matches for {', '.join(lonely)}"] if lonely else []
    return Verdict.from_warnings(warnings, **figures)
