"""Options of `mesh`."""

from pydantic import Field

from pipeline.config import NOT_IN_KEY, StageConfig


class MeshConfig(StageConfig):
    """Options of the stage `mesh`."""

    resolution: int = Field(
        384, ge=32, le=2048, multiple_of=8, description="lattice cells along the region's diameter"
    )
    threshold: float = Field(
        0.0,
        ge=-0.5,
        le=0.5,
        description="signed distance at which the surface is cut, radii of the region; positive = "
        "outside of the trained surface",
    )
    lipschitz: float = Field(
        1.5, ge=1.0, le=20.0, description="largest slope of the field; larger is safer and slower"
    )
    views_needed: int = Field(
        2, ge=0, description="surface that fewer photos see is removed; 0 keeps all"
    )
    remove_backdrop: bool = Field(
        True,
        description="remove dark surface at the region's boundary that no photo tells from a dark "
        "backdrop",
    )
    min_component_fraction: float = Field(
        0.02, ge=0.0, le=1.0, description="pieces below this share of the largest one are removed"
    )
    min_component_points: int = Field(
        30, ge=1, description="small pieces stay if this many sparse points lie on them"
    )
    use_masks: bool = Field(True, description="remove what masks rule out, where there are masks")
    mask_margin: float = Field(
        0.01, ge=0.0, le=0.2, description="masks are widened by this share of the image width"
    )
    blended_views: int = Field(3, ge=1, le=16, description="photos blended for a vertex's colour")
    simplify: int = Field(
        0, ge=0, description="reduce the mesh to about this many faces; 0 keeps all"
    )
    fill_holes: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="close holes up to this wide, radii of the region; 0 leaves all open",
    )
    texture: bool = Field(
        False, description="also a mesh with a texture from the photos (mesh_textured.glb)"
    )
    texture_size: int = Field(
        4096, ge=256, le=16384, description="longest side of the texture, pixels"
    )
    obj: bool = Field(
        False, description="also OBJ + MTL: with the texture where there is one, else with colours"
    )
    device: str = Field(
        "auto",
        description="auto, cpu or cuda",
        json_schema_extra=NOT_IN_KEY,
        pattern="auto|cpu|cuda.*",
    )
    chunk_points: int = Field(
        1 << 16, ge=1, description="points evaluated at a time", json_schema_extra=NOT_IN_KEY
    )
