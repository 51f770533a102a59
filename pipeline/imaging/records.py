"""`ingest.json`: what ingest learnt about every file of the user's folder."""

from pathlib import Path

from pydantic import BaseModel, Field


class PhotoRecord(BaseModel):
    """One file of the user's folder.

    Attributes:
        name: the file's name in that folder.
        file: oriented 8-bit RGB image, relative to the artifact; None if not used.
        mask: mask of the same size, relative to the artifact (255 = object); None if there is none.
        width, height: pixels of `file`, 0 if not used.
        focal_px: focal length from EXIF in pixels of `file`; None if EXIF does not say reliably.
        camera: photos of one group share lens, zoom, and size, hence intrinsics.
        used: whether later stages see it.
        reason: why it is not used; None if it is.
        sharpness: variance of the Laplacian of the grey image at a common size; compares photos
            of one set with each other only.
        full_size_px: width and height of the upright photo before it was downscaled.
        gps: latitude and longitude in degrees (WGS84), altitude in metres or None.
        disbelieved: what its EXIF states and cannot be; counts as absent.
    """

    name: str
    file: str | None = None
    mask: str | None = None
    width: int = 0
    height: int = 0
    focal_px: float | None = None
    camera: str = ""
    used: bool = False
    reason: str | None = None
    sharpness: float | None = None
    gps: tuple[float, float, float | None] | None = None
    full_size_px: tuple[int, int] | None = None
    disbelieved: list[str] = Field(default_factory=list)


class IngestRecord(BaseModel):
    """Everything about one ingest, photos sorted by name."""

    photos: list[PhotoRecord]
    warnings: list[str] = Field(default_factory=list)

    @property
    def used(self) -> list[PhotoRecord]:
        """The usable photos, in order."""
        return [photo for photo in self.photos if photo.used]


def save_ingest(path: Path, record: IngestRecord) -> None:
    """Write `ingest.json`."""
    path.write_text(record.model_dump_json(indent=1))


def load_ingest(path: Path) -> IngestRecord:
    """Read what `save_ingest` wrote."""
    return IngestRecord.model_validate_json(path.read_bytes())
