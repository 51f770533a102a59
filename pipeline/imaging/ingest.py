"""A user's folder to a clean one: every usable photo upright, 8-bit RGB and of bounded size."""

import hashlib
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import InputError
from pipeline.imaging.config import IngestConfig
from pipeline.imaging.decode import (
    FORMATS,
    DecodedPhoto,
    UnusablePhotoError,
    decode_photo,
    sharpness,
    shrink,
)
from pipeline.imaging.exif import camera_group, disbelieved, focal_length_px
from pipeline.imaging.masks import assign_masks, binary, read_mask, shrink_mask
from pipeline.imaging.records import IngestRecord, PhotoRecord
from pipeline.imaging.video import is_video
from pipeline.progress import Progress

MIN_PHOTOS = 3
BLUR_RATIO = 0.1
"""A photo this much less sharp than the median of its set is pointed out."""
THUMBNAIL = 64
SAME_LEVELS = 2.5
"""Photos of a camera that did not move differ less everywhere, at the thumbnail's size, than this
many of 255 levels; the smallest real step differs by tens somewhere."""


@dataclass(frozen=True)
class _Job:
    """One file to take in, and the name that it gets."""

    source: Path
    stem: str
    mask: Path | None


def ingest_photos(
    photos_dir: Path,
    out: Path,
    config: IngestConfig,
    progress: Progress,
    masks_dir: Path | None = None,
) -> IngestRecord:
    """Fill `out/images` (and `out/masks`) from the photos in `photos_dir`, not its subfolders.

    Raises:
        InputError: no such folder, no image in it, fewer than three usable photos, masks that do
            not fit.
    """
    files = photo_files(photos_dir)
    masks = assign_masks(masks_dir, _photo_names(files)) if masks_dir is not None else {}
    (out / "images").mkdir(parents=True, exist_ok=True)
    stems = _unique_stems([f.name for f in files])
    jobs = [_Job(f, stem, masks.get(f.name)) for f, stem in zip(files, stems, strict=True)]
    records = _take_all(jobs, out, config, masks_dir is None, progress)
    _drop_copies(records, files, out)
    _drop_repetitions(records, out)
    record = IngestRecord(photos=records, warnings=_warnings(records, masks_dir))
    _refuse_too_few(record, photos_dir)
    for warning in record.warnings:
        progress.warn(warning)
    return record


def check_photo_folder(folder: Path) -> None:
    """Refuse a folder in which no three files can be photos, without decoding any.

    Raises:
        InputError: no such folder, or fewer than three files named like images.
    """
    if is_video(folder):
        return
    found = len(_photo_names(photo_files(folder)))
    if found < MIN_PHOTOS:
        what = "no images" if found == 0 else f"only {found} image{'s' * (found > 1)}"
        raise InputError(
            f"{what} in {folder}: expected at least {MIN_PHOTOS} photos, got {found}",
            hint="take 20 or more overlapping photos all around the object",
        )


def readable_photo_names(folder: Path) -> list[str]:
    """Names of the files that say they are images, without decoding their pixels.

    Raises:
        InputError: a video, whose frames have no names yet.
    """
    if is_video(folder):
        raise InputError(
            "ground truth belongs to photos by name, and the frames of a video have none yet",
            hint="run with --to ingest first, and give its images as photos",
        )
    names = []
    for path in photo_files(folder):
        try:
            with Image.open(path):
                names.append(path.name)
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
    return names


def photo_files(folder: Path) -> list[Path]:
    """The files of `folder` by name, hidden ones left out.

    Raises:
        InputError: no such folder, or nothing in it.
    """
    if not folder.exists():
        raise InputError(
            f"the folder of photos {folder} does not exist", hint="check the path for a typo"
        )
    if not folder.is_dir():
        raise InputError(f"{folder} is a file: expected a folder of photos, or a video")
    try:
        entries = sorted(folder.iterdir(), key=lambda p: p.name)
    except PermissionError as error:
        raise InputError(f"no permission to read the folder {folder}") from error
    hidden = (".", "Thumbs.db", "desktop.ini")
    files = [p for p in entries if p.is_file() and not p.name.startswith(hidden)]
    if not files:
        folders = [p.name for p in entries if p.is_dir()]
        raise InputError(
            f"no images in {folder}: expected at least {MIN_PHOTOS} photos"
            " (JPEG, PNG, TIFF, WebP or HEIC), got none",
            hint=f"photos in subfolders are not read; give {folder / folders[0]} instead?"
            if folders
            else "give the folder that holds the photos themselves",
        )
    return files


def _photo_names(files: list[Path]) -> list[str]:
    image_like = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".heic", ".heif", ".avif"}
    image_like |= {".bmp", ".ppm", ".mpo"}
    return [f.name for f in files if f.suffix.lower() in image_like]


def _unique_stems(names: list[str]) -> list[str]:
    """Safe file stems: letters, digits, dot, dash, underscore, unique without regard to case."""
    stems: list[str] = []
    taken: set[str] = set()
    for name in names:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", Path(name).stem).lstrip(".") or "photo"
        candidate, number = stem, 2
        while candidate.lower() in taken:
            candidate, number = f"{stem}_{number}", number + 1
        taken.add(candidate.lower())
        stems.append(candidate)
    return stems


def _take_all(
    jobs: list[_Job], out: Path, config: IngestConfig, alpha_allowed: bool, progress: Progress
) -> list[PhotoRecord]:
    use_alpha = alpha_allowed and config.use_alpha
    records = []
    with ThreadPoolExecutor(config.threads) as pool:
        pending = [pool.submit(_take_one, job, out, config, use_alpha) for job in jobs]
        try:
            for done, future in enumerate(pending, start=1):
                records.append(future.result())
                progress.advance("photos", done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return records


def _take_one(job: _Job, out: Path, config: IngestConfig, use_alpha: bool) -> PhotoRecord:
    try:
        photo = decode_photo(job.source)
    except UnusablePhotoError as error:
        return PhotoRecord(name=job.source.name, reason=str(error))
    rgb = shrink(photo.rgb, config.max_side_px)
    height, width = rgb.shape[:2]
    if photo.verbatim and rgb is photo.rgb:
        file = f"images/{job.stem}{job.source.suffix.lower()}"
        shutil.copyfile(job.source, out / file)
    else:
        file = f"images/{job.stem}.png"
        write_png(out / file, rgb)
    return PhotoRecord(
        name=job.source.name,
        file=file,
        mask=_take_mask(job, photo, out, (width, height), use_alpha),
        width=width,
        height=height,
        focal_px=focal_length_px(photo.tags, width, height),
        camera=camera_group(photo.tags, width, height),
        used=True,
        sharpness=round(sharpness(rgb), 2),
        gps=photo.tags.gps,
        disbelieved=disbelieved(photo.tags, width, height),
        full_size_px=(photo.rgb.shape[1], photo.rgb.shape[0]),
    )


def _take_mask(
    job: _Job, photo: DecodedPhoto, out: Path, size_px: tuple[int, int], use_alpha: bool
) -> str | None:
    if job.mask is not None:
        mask = read_mask(job.mask, photo)
    elif use_alpha and photo.alpha is not None:
        mask = binary(photo.alpha)
    else:
        return None
    file = f"masks/{job.stem}.png"
    (out / "masks").mkdir(exist_ok=True)
    write_png(out / file, shrink_mask(mask, *size_px))
    return file


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) RGB or (H, W) grey, lightly compressed.

    Raises:
        OSError: the file cannot be written.
    """
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    encoded, data = cv2.imencode(".png", stored, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not encoded:
        raise OSError(f"cannot encode {path.name}")
    path.write_bytes(data.tobytes())


def _drop_repetitions(records: list[PhotoRecord], out: Path) -> None:
    """Photos that show exactly the same, stored differently: as useless as copies."""
    kept: list[tuple[str, NDArray[np.float32]]] = []
    for record in records:
        if not record.used:
            continue
        with Image.open(out / str(record.file)) as image:
            # without colour: its compression noise is larger than that of brightness
            small = image.convert("L").resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)
            thumbnail = np.asarray(small, dtype=np.float32)
        twin = next((n for n, t in kept if np.abs(t - thumbnail).max() < SAME_LEVELS), None)
        if twin is None:
            kept.append((record.name, thumbnail))
        else:
            _leave_out(record, f"shows exactly the same as {twin}", out)


def _leave_out(record: PhotoRecord, reason: str, out: Path) -> None:
    record.reason, record.used = reason, False
    for stored in (record.file, record.mask):
        if stored is not None:
            (out / stored).unlink()
    record.file = record.mask = None


def _drop_copies(records: list[PhotoRecord], files: list[Path], out: Path) -> None:
    """A second copy of a photo has no baseline to the first and only adds false confidence."""
    seen: dict[str, str] = {}
    for record, source in zip(records, files, strict=True):
        if not record.used:
            continue
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        if digest in seen:
            _leave_out(record, f"the same file as {seen[digest]}", out)
        seen.setdefault(digest, record.name)


def _warnings(records: list[PhotoRecord], masks_dir: Path | None) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for record in records:
        if record.reason is not None:
            by_reason.setdefault(record.reason, []).append(record.name)
    warnings = [f"skipped {_names(names)}: {reason}" for reason, names in by_reason.items()]
    used = [r for r in records if r.used]
    doubts: dict[str, list[str]] = {}
    for record in used:
        for doubt in record.disbelieved:
            doubts.setdefault(doubt, []).append(record.name)
    warnings += [f"{d}, and counts as absent: {_names(names)}" for d, names in doubts.items()]
    blurred = _blurred(used)
    if blurred:
        warnings.append(f"much less sharp than the others: {_names(blurred)}")
    unmasked = [r.name for r in used if r.mask is None]
    if unmasked and len(unmasked) < len(used):
        source = masks_dir if masks_dir is not None else "their transparency"
        warnings.append(f"no mask in {source} for {_names(unmasked)}")
    return warnings


def _blurred(used: list[PhotoRecord]) -> list[str]:
    values = np.array([r.sharpness for r in used if r.sharpness is not None])
    if len(values) < MIN_PHOTOS:
        return []
    limit = BLUR_RATIO * float(np.median(values))
    return [r.name for r in used if r.sharpness is not None and r.sharpness < limit]


def _names(names: list[str], limit: int = 5) -> str:
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _refuse_too_few(record: IngestRecord, photos_dir: Path) -> None:
    used = len(record.used)
    if used >= MIN_PHOTOS:
        return
    skipped = [f"{p.name} ({p.reason})" for p in record.photos if p.reason is not None]
    detail = f"; skipped {_names(skipped)}" if skipped else ""
    what = "no images" if used == 0 else f"only {used} usable photo{'s' * (used > 1)}"
    raise InputError(
        f"{what} in {photos_dir}: expected at least {MIN_PHOTOS}, got {used}{detail}",
        hint="take 20 or more overlapping photos all around the object"
        f" (readable formats: {', '.join(FORMATS)})",
    )
