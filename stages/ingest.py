"""Stage `ingest`: the user's folder to upright RGB photos of bounded size."""

import shutil
from pathlib import Path

from pipeline.errors import InputError
from pipeline.imaging.ingest import ingest_photos
from pipeline.imaging.records import save_ingest
from pipeline.imaging.video import extract_frames, is_video
from pipeline.verdict import Verdict
from stages.base import StageContext


def run(ctx: StageContext) -> Verdict:
    """Write `images/`, `masks/` where there are masks, and `ingest.json`."""
    if "photos" not in ctx.external:
        raise InputError("no folder of photos was given")
    photos, masks = ctx.external["photos"], ctx.external.get("masks")
    if is_video(photos):
        photos = _frames(ctx, photos)
    record = ingest_photos(photos, ctx.out, ctx.config, ctx.progress, masks)
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


def _frames(ctx: StageContext, video: Path) -> Path:
    """Folder of the frames chosen from a video."""
    if "masks" in ctx.external:
        raise InputError(
            "masks cannot be given with a video: their names would have to be those of frames that"
            " are not chosen yet",
            hint="run with --to ingest first, and give its images as photos, with masks",
        )
    folder = ctx.work / "frames"
    shutil.rmtree(folder, ignore_errors=True)
    frames = extract_frames(video, folder, ctx.config.video_frames, ctx.progress)
    ctx.progress.note(f"{len(frames)} frames chosen from {video.name}")
    return folder
