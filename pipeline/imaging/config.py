"""Options of `ingest`."""

from pydantic import Field

from pipeline.config import NOT_IN_KEY, StageConfig


class IngestConfig(StageConfig):
    """Options of `ingest`."""

    max_side_px: int = Field(
        1600, ge=256, le=20000, description="photos are downscaled to this longer side, in pixels"
    )
    use_alpha: bool = Field(
        True, description="take transparency as the mask where no folder of masks is given"
    )
    video_frames: int = Field(
        80, ge=3, le=2000, description="frames chosen from a video, at even steps of its movement"
    )
    threads: int = Field(
        4, ge=1, le=64, description="photos decoded at once", json_schema_extra=NOT_IN_KEY
    )
