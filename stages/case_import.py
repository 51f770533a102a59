"""Stages `scene` and `matches` where a run enters with a case that somebody else made."""

from pipeline.formats.case import sorted_images
from pipeline.formats.case_files import image_folder
from pipeline.imaging.case_import import import_matches, import_scene
from pipeline.store.files import write_json
from pipeline.verdict import Verdict
from stages.base import StageContext


def import_case_scene(ctx: StageContext) -> Verdict:
    """Write `image/`, `mask/`, `cameras_colmap.npz`, `views.json` and `scene.json`."""
    scene = import_scene(ctx.external["case"], ctx.config.case_cameras, ctx.out, ctx.progress)
    report = scene.report
    verdict = Verdict.from_warnings(
        scene.warnings,
        views=report["views"],
        size_px=f"{report['width']}x{report['height']}",
        cameras_from=report["cameras_from"],
        region_source=report["region_source"],
        radius=report["radius"],
        camera_distance_radii=round(report["camera_distance_radii"], 2),
    )
    write_json(
        ctx.out / "scene.json",
        {**report, "verdict": verdict.brief()},
    )
    return verdict


def import_case_matches(ctx: StageContext) -> Verdict:
    """Write `colmap_matches/` and `matches.json`."""
    case = ctx.external["case"]
    matches = import_matches(case, len(sorted_images(image_folder(case))), ctx.out)
    write_json(ctx.out / "matches.json", matches.figures)
    return Verdict.from_warnings(matches.warnings, **matches.figures)
