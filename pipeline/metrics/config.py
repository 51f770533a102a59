"""Options of `evaluate`."""

from typing import Literal

from pydantic import Field

from pipeline.config import NOT_IN_KEY, StageConfig


class EvaluateConfig(StageConfig):
    """Options of the evaluation; fractions of lengths are fractions of the object's radius."""

    views: int = Field(4, ge=1, le=100, description="views rendered and compared with their photos")
    max_side_px: int = Field(
        240, ge=32, le=4096, description="renders are shrunk to this longer side, in pixels"
    )
    rays_per_view: int = Field(
        20_000, ge=500, le=4_000_000, description="rays a view that sample the seen surface"
    )
    spacing: float = Field(
        0.01, gt=0, le=0.1, description="surface points are thinned to one in a cube of this edge"
    )
    cap: float = Field(0.2, gt=0, le=10, description="larger surface distances count as this one")
    threshold: float = Field(
        0.01, gt=0, le=1, description="surface distance below which a point counts as right"
    )
    margin_px: float = Field(
        2.0, ge=0, le=50, description="rays nearer to the object's outline do not count, in pixels"
    )
    alignment: Literal["centres", "poses", "icp", "none"] = Field(
        "centres",
        description="how the mesh is laid onto the true one: by camera centres, by camera "
        "rotations and centres, by centres and then ICP, or not at all",
    )
    unit: str | None = Field(
        None, max_length=20, description="unit of the ground truth, where its file names none"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where views are rendered", json_schema_extra=NOT_IN_KEY
    )
