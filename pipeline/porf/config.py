"""Options of joint training."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from pipeline.config import NOT_IN_KEY, StageConfig


class _Section(BaseModel):
    """A group of options: frozen, and unknown names are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class PoseConfig(_Section):
    """How the cameras are corrected."""

    model: Literal["porf", "learn_pose", "fixed"] = Field(
        "porf",
        description="porf: the pose residual field; learn_pose: six free numbers a view; "
        "fixed: the given cameras are kept",
    )
    mode: Literal["porf", "index_only", "pose_only"] = Field(
        "porf", description="what the residual field sees: index and pose, or one of them"
    )
    zero_init: bool = Field(
        True, description="refinement starts exactly at the given cameras (the original does not)"
    )
    scale: float = Field(1e-2, gt=0, description="factor on the residual field's output")
    learning_rate: float = Field(5e-4, gt=0, description="Adam's rate in joint training")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="rate over joint training: like the field's, or as it is"
    )
    joint_start: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of the steps after which joint training moves the cameras, by colours "
        "and matches together",
    )
    settle_share: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="last share of the steps, with the cameras fixed to the ones that agree best "
        "with held-out matches; 0 = cameras are trained to the end and the gate only reports",
    )


class EpipolarConfig(_Section):
    """The epipolar loss and the phase that minimises it alone."""

    bundle_adjust: bool = Field(
        True, description="adjust the cameras to the matches' tracks before training"
    )
    calibrate: bool = Field(
        False,
        description="that adjustment also tries a new focal length, principal point and radial "
        "distortion, which held-out matches must confirm strongly; for cases whose principal point "
        "was never measured",
    )
    steps: int = Field(
        0,
        ge=0,
        description="steps of an epipolar-only phase of the pose model; 0 = none: the adjustment "
        "does more in less time",
    )
    learning_rate: float = Field(5e-3, gt=0, description="Adam's rate in the epipolar-only phase")
    matches_per_step: int = Field(
        60_000, ge=100, description="matches of a step in the epipolar-only phase, at most"
    )
    weight: float = Field(0.1, ge=0, description="weight of the epipolar loss in joint training")
    inlier_px: float = Field(20.0, gt=0, description="matches farther off are ignored, pixels")
    max_matches_per_pair: int = Field(5000, ge=1, description="matches of a pair, at most")
    pairs_per_step: int = Field(48, ge=1, description="view pairs a joint step")
    pairs_from: Literal["all_views", "one_view"] = Field(
        "all_views", description="pairs of the whole set, or of the step's one view (the original)"
    )
    heldout_share: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="share of the matches that judge the cameras and are not trained on, where the "
        "match files mark none; 0 = all are trained on, marked ones too (the original)",
    )


class GridConfig(_Section):
    """The fast field: hashed feature grids with small networks."""

    resolutions: tuple[int, ...] = Field(
        (16, 32, 64, 128, 256), min_length=1, description="vertices along an axis, coarse to fine"
    )
    channels: int = Field(4, ge=1, le=16, description="features a level")
    log2_entries: int = Field(18, ge=8, le=24, description="a level has at most 2^this entries")
    hidden_width: int = Field(64, ge=4, description="width of the distance and colour networks")
    initial_radius: float = Field(0.5, gt=0, lt=1, description="first surface: a sphere around 0")
    grid_learning_rate: float = Field(1e-2, gt=0, description="Adam's rate of the grids")
    network_learning_rate: float = Field(2e-3, gt=0, description="Adam's rate of the networks")
    warmup_steps: int = Field(50, ge=0, description="linear warm-up of the rates")
    final_rate: float = Field(0.02, ge=0, le=1, description="share of the rates left at the end")
    samples: int = Field(16, ge=4, description="samples a ray inside the unit sphere")
    uniform_samples: int = Field(4, ge=1, description="of them evenly spread, the rest by weight")
    color_samples: int = Field(
        8, ge=1, description="heaviest samples of a ray that get a colour; the rest is left out"
    )
    proposals: int = Field(64, ge=8, description="lookups a ray in the cached distances")
    cache_resolution: int = Field(72, ge=8, description="vertices along an axis of the cache")
    cache_steps: int = Field(40, ge=1, description="steps in which the cache is renewed once")
    inv_s_start: float = Field(60.0, gt=0, description="sharpness of the surface at the start")
    inv_s_end: float = Field(300.0, gt=0, description="sharpness of the surface at the end")
    inv_s_share: float = Field(0.8, gt=0, le=1, description="share of the steps until inv_s_end")
    coarse_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the steps in which the finer levels join in; 0 = all from the start, "
        "as the first surface needs them",
    )
    anneal_share: float = Field(0.1, ge=0, le=1, description="NeuS' cosine annealing, of the steps")
    view_start: float = Field(
        0.0, ge=0, le=1, description="share of the steps after which colour may depend on the view"
    )
    eikonal_weight: float = Field(0.1, ge=0, description="weight of |gradient| = 1")
    roughness_weight: float = Field(
        0.1, ge=0, description="weight of differences between normals that are close together"
    )
    roughness_reach: float = Field(
        0.03, gt=0, description="how close, units of the region's radius"
    )
    anchor_steps: int = Field(
        400,
        ge=0,
        description="steps in which the first surface is fitted to matches and stereo depths "
        "before colours are trained; 0 = it stays a sphere",
    )
    anchor_weight: float = Field(
        4.0, ge=0, description="weight of matches and stereo depths beside colours; 0 = none"
    )
    anchor_end: float = Field(
        1.0, ge=0, le=1, description="share of that weight that is left at the last step"
    )
    background: Literal["volume", "color"] = Field(
        "volume",
        description="volume: density and colour of all space beyond the sphere, contracted; "
        "color: one colour a direction, for objects on a plain backdrop",
    )
    background_samples: int = Field(8, ge=1, description="samples behind the sphere")
    foreground_samples: int = Field(
        0,
        ge=0,
        description="samples between camera and sphere, for scenes with something in the way; they "
        "can paint what the surface should show",
    )
    background_resolutions: tuple[int, ...] = Field(
        (16, 32, 64), min_length=1, description="vertices along an axis of the outside's grid"
    )
    background_log2_entries: int = Field(15, ge=8, le=24, description="entries a level: 2^this")

    @model_validator(mode="after")
    def _samples_fit(self) -> "GridConfig":
        if self.uniform_samples >= self.samples:
            raise ValueError("uniform_samples must be smaller than samples")
        return self


class StereoConfig(_Section):
    """Depth maps by plane sweep, which give the fast field its first surface."""

    views: int = Field(24, ge=0, description="views that get a depth map, at most; 0 = no stereo")
    neighbours: int = Field(4, ge=1, description="views that each is compared with")
    depths: int = Field(96, ge=8, description="depths tried along a ray")
    max_image_side: int = Field(320, ge=32, description="larger images are reduced for stereo")
    window: int = Field(5, ge=3, description="side of the compared windows, pixels")
    smoothness: float = Field(
        1.0,
        ge=0,
        description="price of a jump of depth between pixels, against 1 for windows that do not "
        "correlate at all; 0 = every pixel on its own",
    )
    min_score: float = Field(0.3, ge=-1, le=1, description="least correlation of windows")
    min_views: int = Field(2, ge=1, description="other depth maps that must confirm a depth")
    consistency: float = Field(
        0.01, gt=0, lt=1, description="depths confirm each other within this share"
    )

    @field_validator("window")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the window has a middle pixel")
        return value


class LookConfig(_Section):
    """Depths measured again, closely around the fast field's surface as it has become."""

    shares: tuple[Annotated[float, Field(ge=0, lt=1)], ...] = Field(
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        description="shares of the steps at which this is done; empty = never",
    )
    fit_steps: int = Field(
        200, ge=0, description="steps in which a surface is fitted to it that knows no colours yet"
    )
    max_image_side: int = Field(640, ge=32, description="larger images are reduced")
    levels: int = Field(
        2,
        ge=1,
        le=4,
        description="sizes of the images, each half of the next one; with half the size goes twice "
        "the reach",
    )
    reach: float = Field(
        0.05, gt=0, lt=1, description="how far around the surface, units of the region's radius"
    )
    depths: int = Field(9, ge=5, description="depths tried within that reach")
    min_score: float = Field(0.5, ge=-1, le=1, description="least correlation of windows")
    min_views: int = Field(1, ge=0, description="other depth maps that must confirm a depth")
    consistency: float = Field(
        0.005, gt=0, lt=1, description="depths confirm each other within this share"
    )


class SurfaceConfig(_Section):
    """Which surface is the result."""

    mode: Literal["joint", "second_stage"] = Field(
        "joint",
        description="joint: the surface that was trained together with the cameras; second_stage: "
        "another one, trained after it with the refined cameras held fixed",
    )
    steps: int = Field(2500, ge=1, description="steps of the second stage")
    resolutions: tuple[int, ...] = Field(
        (16, 32, 64, 128, 256, 512),
        min_length=1,
        description="its fast field's vertices along an axis, coarse to fine",
    )
    log2_entries: int = Field(
        20, ge=8, le=24, description="a level of it has at most 2^this entries"
    )


class NeusConfig(_Section):
    """The reference field: NeuS in PoRF's configuration."""

    learning_rate: float = Field(5e-4, gt=0, description="Adam's rate")
    warmup_steps: int = Field(500, ge=0, description="linear warm-up of the rate")
    final_rate: float = Field(0.05, ge=0, le=1, description="share of the rate left at the end")
    cos_anneal_steps: int = Field(5000, ge=0, description="NeuS' cosine annealing")
    coarse_samples: int = Field(64, ge=2, description="evenly spread samples")
    importance_samples: int = Field(64, ge=0, description="samples placed by weight")
    upsample_steps: int = Field(4, ge=1, description="rounds in which they are placed")
    outside_samples: int = Field(32, ge=0, description="samples beyond the unit sphere")
    eikonal_weight: float = Field(0.1, ge=0, description="weight of |gradient| = 1")
    distortion_weight: float = Field(0.001, ge=0, description="weight of the distortion loss")
    hidden_width: int = Field(256, ge=4, description="width of the distance network")
    hidden_layers: int = Field(8, ge=2, description="layers of the distance network")
    skip_layer: int = Field(4, ge=1, description="layer that sees the input again")
    sdf_frequencies: int = Field(6, ge=0, description="octaves of the position encoding")
    color_width: int = Field(256, ge=4, description="width of the colour network")
    color_layers: int = Field(4, ge=1, description="layers of the colour network")
    view_frequencies: int = Field(4, ge=0, description="octaves of the direction encoding")
    feature_width: int = Field(256, ge=1, description="features from distance to colour network")
    initial_radius: float = Field(0.5, gt=0, lt=1, description="first surface: a sphere around 0")
    initial_variance: float = Field(0.3, description="the sharpness starts at exp(10 x this)")


class TrainConfig(StageConfig):
    """Joint training of cameras and surface."""

    field: Literal["grid", "neus"] = Field(
        "grid", description="grid: hashed feature grids, fast; neus: the published networks"
    )
    steps: int = Field(
        2500,
        ge=0,
        description="steps of joint training; 0 = cameras by matches alone, no surface "
        "(`--to train`, then `porf export-cameras`)",
    )
    rays: int = Field(768, ge=1, description="pixels a step")
    rays_from: Literal["all_views", "one_view"] = Field(
        "all_views", description="pixels of all views mixed, or of one view a step (the original)"
    )
    rays_near_object: bool = Field(
        True,
        description="pixels from where a view sees the unit sphere, with masks from around the "
        "object; false = whole views",
    )
    max_image_side: int = Field(
        0, ge=0, description="larger images are reduced to this many pixels; 0 = full size"
    )
    color_order: Literal["rgb", "bgr"] = Field(
        "rgb", description="order of the colours that the field learns (the original: bgr)"
    )
    color_divisor: Literal[255, 256] = Field(
        255, description="8-bit colours are divided by this (the original: 256)"
    )
    use_masks: bool = Field(True, description="train the object alone where the case has masks")
    mask_weight: float = Field(0.03, ge=0, description="weight of the silhouette, with masks")
    heldout_blocks: float = Field(
        0.02, ge=0, le=0.5, description="share of 16×16 pixel blocks never trained on, for PSNR"
    )
    pose: PoseConfig = PoseConfig()
    epipolar: EpipolarConfig = EpipolarConfig()
    stereo: StereoConfig = StereoConfig()
    look: LookConfig = LookConfig()
    grid: GridConfig = GridConfig()
    surface: SurfaceConfig = SurfaceConfig()
    neus: NeusConfig = NeusConfig()
    checkpoint_every: int = Field(
        500, ge=1, description="steps between checkpoints", json_schema_extra=NOT_IN_KEY
    )
    mixed_precision: Literal["off", "tf32", "bf16"] = Field(
        "off", description="of matrix products on CUDA; left out, aloud, on a CPU"
    )
    compile: bool = Field(
        False,
        description="let torch.compile fuse the rendering on CUDA; left out, aloud, on a CPU",
        json_schema_extra=NOT_IN_KEY,
    )
    tensorboard: bool = Field(
        False,
        description="write curves, and a small render at every checkpoint, for TensorBoard",
        json_schema_extra=NOT_IN_KEY,
    )
    log_every: int = Field(50, ge=1, description="steps between rows of the training history")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where training runs", json_schema_extra=NOT_IN_KEY
    )

    @model_validator(mode="after")
    def _stages_fit(self) -> "TrainConfig":
        if self.steps == 0 and self.surface.mode == "second_stage":
            raise ValueError("surface.mode second_stage follows joint training: steps must be > 0")
        return self
