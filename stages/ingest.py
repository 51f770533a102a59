"""Stage `ingest`: the user's folder to upright RGB photos of bounded size."""

from pipeline.errors import InputError
from pipeline.imaging.ingest import ingest_photos
from pipeline.imaging.records import save_ingest
from pipeline.verdict import Verdict
from stages.base import StageContext


def run(ctx: StageContext) -> Verdict:
    """Write `images/`, `masks/` where there are masks, and `ingest.json`."""
    if "photos" not in ctx.external:
        raise InputError("no folder of photos was given")
    record = ingest_photos(
        ctx.external["photos"], ctx.out, ctx.config, ctx.progress, ctx.external.get("masks")
    )
    save_ingest(ctx.out / "ingest.json", record)
    used = record.used
    return Verdict.from_warnings(
        record.warnings,
        photos=len(used),
        skipped=len(record.photos) - len(used),
        cameras=len({photo.camera for photo in used}),
        masks=sum(photo.mask is not None for photo in used),
        with_focal_length=sum(photo.focal_px is not None for photo in used),
        with_gps=sum(photo.gps is not None for photo in used),
    )
