"""Stage `sfm`: upright photos to calibrated cameras and sparse points."""

from pipeline.imaging.records import load_ingest
from pipeline.sfm.reconstruct import reconstruct
from pipeline.sfm.report import refuse_contradiction, refuse_too_few, warnings_of
from pipeline.store.files import write_json
from pipeline.verdict import Verdict
from stages.base import StageContext


def run(ctx: StageContext) -> Verdict:
    """Write `sparse/`, `database.db` and `sfm.json`."""
    ingest_dir = ctx.inputs["ingest"]
    photo_count = len(load_ingest(ingest_dir / "ingest.json").used)
    result = reconstruct(
        ingest_dir,
        ctx.out,
        ctx.work,
        ctx.config,
        ctx.seed,
        ctx.progress,
        ctx.external.get("cameras"),
    )
    report = result.report
    refuse_contradiction(report, ctx.config)
    if report["given_cameras"] is None:
        refuse_too_few(report, photo_count, ctx.config)
    warnings = warnings_of(report, photo_count)
    frame, uncertainty = report["frame"], report["rotation_uncertainty"]
    verdict = Verdict.from_warnings(
        warnings,
        registered=len(report["registered"]),
        photos=photo_count,
        points=report["points"],
        track_length=round(report["track_length_mean"], 2),
        reprojection_median_px=round(report["reprojection_px"]["median"], 3),
        calibration=report["calibration"]["rationale"],
        unit=frame["unit"],
        contradicting_pairs=round(report["consistency"]["contradicting_share"], 3),
        rotation_sigma_deg=None if uncertainty is None else round(uncertainty["median_deg"], 4),
        weak_links=len(report["network"]["weak_links"]),
        advice=report["advice"],
    )
    write_json(
        ctx.out / "sfm.json",
        {**report, "verdict": verdict.brief()},
    )
    return verdict
