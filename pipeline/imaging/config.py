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
    threads: int = Field(
        4, ge=1, le=64, description="photos decoded at once", json_schema_extra=NOT_IN_KEY
    )
