"""Options of structure from motion."""

import os
from typing import Literal

from pydantic import Field, model_validator

from pipeline.config import NOT_IN_KEY, StageConfig

CameraModel = Literal["auto", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"]


class SfmConfig(StageConfig):
    """Options of `sfm`."""

    max_features: int = Field(
        8192, ge=256, le=65536, description="SIFT features kept a photo, the largest ones"
    )
    use_masks: bool | Literal["auto"] = Field(
        "auto",
        description="take features inside the masks only, where masks were given; auto: unless the"
        " whole photos register more",
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


class SceneConfig(StageConfig):
    """Options of `scene`."""

    roi_center: tuple[float, float, float] | None = Field(
        None, description="centre of the region of interest, world units; needs roi_radius"
    )
    roi_radius: float | None = Field(
        None, gt=0, description="radius of the region of interest, world units"
    )
    roi_scale: float = Field(
        1.0, gt=0, le=10, description="factor on the radius that was found or given"
    )
    use_masks: bool = Field(True, description="find the region of interest from masks, if given")

    @model_validator(mode="after")
    def _centre_needs_radius(self) -> "SceneConfig":
        if self.roi_center is not None and self.roi_radius is None:
            raise ValueError("roi_center needs roi_radius")
        return self


class MatchesConfig(StageConfig):
    """Options of `matches`."""

    min_matches: int = Field(
        15, ge=1, description="pairs of views with fewer verified matches are left out"
    )
    heldout_fraction: float = Field(
        0.1, ge=0, le=0.5, description="share of the matches kept out of every optimisation"
    )
