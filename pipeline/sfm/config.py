"""Options of structure from motion."""

import os
from typing import Literal

from pydantic import Field

from pipeline.config import NOT_IN_KEY, StageConfig

CameraModel = Literal["auto", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"]


class SfmConfig(StageConfig):
    """Options of `sfm`."""

    max_features: int = Field(
        8192, ge=256, le=65536, description="SIFT features kept a photo, the largest ones"
    )
    use_masks: bool = Field(
        True, description="take features inside the masks only, where masks were given"
    )
    exhaustive_limit: int = Field(
        100, ge=2, description="up to this many photos every pair is matched"
    )
    neighbours: int = Field(
        20, ge=2, le=200, description="beyond the limit: pairs a photo by order and by similarity"
    )
    min_inliers: int = Field(
        15, ge=8, description="a pair of photos counts as verified from this many matches"
    )
    share_cameras: bool = Field(
        True, description="photos of one camera, zoom and size share their intrinsics"
    )
    camera_model: CameraModel = Field(
        "auto", description="lens model of the last adjustment; auto: chosen by evidence"
    )
    self_calibrate: bool | Literal["auto"] = Field(
        "auto", description="refine the principal point: auto = where the matches determine it"
    )
    threads: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="CPU threads",
        json_schema_extra=NOT_IN_KEY,
    )
