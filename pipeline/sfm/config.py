"""Options of structure from motion."""

import os
from typing import Literal

from pydantic import Field, model_validator

from pipeline.config import NOT_IN_KEY, StageConfig

MarkerDictionary = Literal[
    "DICT_4X4_50",
    "DICT_4X4_100",
    "DICT_4X4_250",
    "DICT_5X5_50",
    "DICT_5X5_100",
    "DICT_5X5_250",
    "DICT_6X6_50",
    "DICT_6X6_100",
    "DICT_6X6_250",
    "DICT_7X7_50",
    "DICT_ARUCO_ORIGINAL",
    "DICT_APRILTAG_16H5",
    "DICT_APRILTAG_25H9",
    "DICT_APRILTAG_36H10",
    "DICT_APRILTAG_36H11",
]
CameraModel = Literal["auto", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL"]


class ScaleConfig(StageConfig):
    """What tells the size of things; `sfm.scale`."""

    source: Literal["auto", "none", "markers", "distances", "gps"] = Field(
        "auto", description="auto: the first of markers, distances, GPS that was given and holds"
    )
    given_unit: Literal["auto", "unknown", "m", "mm"] = Field(
        "auto", description="unit of the frame of --cameras; auto: as its format says"
    )
    distances: tuple[tuple[str, str, float], ...] = Field(
        (), description="known distances between camera positions: [photo, photo, metres] each"
    )
    marker_dictionary: MarkerDictionary | None = Field(
        None, description="printed markers to look for (OpenCV's names)"
    )
    marker_size_m: float | None = Field(
        None, gt=0, description="side of a marker's black square, metres"
    )
    marker_distance: tuple[int, int, float] | None = Field(
        None, description="known distance of two markers' centres: [id, id, metres]"
    )
    gps_min_photos: int = Field(
        5, ge=4, description="GPS counts from this many photos that agree with the cameras"
    )

    @model_validator(mode="after")
    def _complete(self) -> "ScaleConfig":
        lengths = self.marker_size_m is not None or self.marker_distance is not None
        if lengths != (self.marker_dictionary is not None):
            raise ValueError(
                "markers need marker_dictionary and one of marker_size_m and marker_distance"
            )
        if self.source == "markers" and not lengths:
            raise ValueError("source markers needs marker_dictionary and a length")
        if self.source == "distances" and not self.distances:
            raise ValueError("source distances needs distances")
        if any(length <= 0 or a == b for a, b, length in self.distances):
            raise ValueError("a distance is between two photos and larger than 0")
        if self.marker_distance is not None and (
            self.marker_distance[2] <= 0 or self.marker_distance[0] == self.marker_distance[1]
        ):
            raise ValueError("marker_distance is between two markers and larger than 0")
        return self


class SfmConfig(StageConfig):
    """Options of `sfm`."""

    max_features: int = Field(
        8192, ge=256, le=65536, description="SIFT features kept a photo, the largest ones"
    )
    features: Literal["sift", "aliked"] = Field(
        "sift", description="kind of features; aliked needs a pycolmap with ONNX and its model file"
    )
    matcher: Literal["brute_force", "lightglue"] = Field(
        "brute_force",
        description="how features are matched; lightglue needs a pycolmap with ONNX and its model"
        " file",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto",
        description="where features are found and matched; auto: CUDA if pycolmap was built with"
        " it, else the CPU",
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
        20,
        ge=2,
        le=200,
        description="beyond the limit: pairs a photo by order and by similarity; half as many more"
        " by nearness where photos have GPS",
    )
    min_inliers: int = Field(
        15, ge=8, description="a pair of photos counts as verified from this many matches"
    )
    min_registered: float = Field(
        0.3, ge=0, le=1, description="share of the photos that must find their place"
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
    on_contradiction: Literal["solve", "refuse", "warn"] = Field(
        "solve",
        description="what to do when many strongly matched pairs contradict the cameras, since"
        " repeated texture leads to wrong cameras that look right; solve: map again without the"
        " look-alikes where these can be told, else refuse",
    )
    second_opinion: bool = Field(
        True,
        description="where the first mapping leaves doubt, map in two other ways and take the"
        " mapping that the others confirm best",
    )
    contradiction_limit: float = Field(
        0.25, gt=0, le=1, description="share of contradicting pairs that is too many"
    )
    refine_given: Literal["none", "poses", "all"] = Field(
        "none",
        description="with --cameras: adjust nothing, the poses, or poses, focal lengths and"
        " distortion; the result stays in the given frame",
    )
    missing_cameras: Literal["refuse", "skip"] = Field(
        "refuse", description="with --cameras: what to do about photos that have none"
    )
    scale: ScaleConfig = Field(default_factory=ScaleConfig)
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
    roi_box: tuple[float, float, float, float, float, float] | None = Field(
        None,
        description="region of interest as a box x0 y0 z0 x1 y1 z1, world units; the sphere around"
        " it is taken",
    )
    roi_scale: float = Field(
        1.0, gt=0, le=10, description="factor on the radius that was found or given"
    )
    use_masks: bool = Field(True, description="find the region of interest from masks, if given")
    case_cameras: str = Field(
        "auto",
        pattern=r"^(auto|[\w.-]+\.npz)$",
        description="file of a finished case (`porf train`) with the cameras to refine; auto: "
        "cameras_colmap.npz, else cameras_arkit.npz",
    )

    @model_validator(mode="after")
    def _centre_needs_radius(self) -> "SceneConfig":
        if self.roi_center is not None and self.roi_radius is None:
            raise ValueError("roi_center needs roi_radius")
        if self.roi_box is not None:
            if self.roi_radius is not None:
                raise ValueError("give roi_box or roi_radius, not both")
            if any(
                low >= high for low, high in zip(self.roi_box[:3], self.roi_box[3:], strict=True)
            ):
                raise ValueError("the first corner of roi_box must lie below the second")
        return self


class MatchesConfig(StageConfig):
    """Options of `matches`."""

    min_matches: int = Field(
        15, ge=1, description="pairs of views with fewer verified matches are left out"
    )
    heldout_fraction: float = Field(
        0.1, ge=0, le=0.5, description="share of the matches kept out of every optimisation"
    )
