"""From a trained field to a cleaned, coloured mesh in the world frame."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.geometry.raycast import RayScene
from pipeline.progress import Progress
from pipeline.surface.backdrop import Backdrop, remove_backdrop
from pipeline.surface.check import measure_shape, shape_verdicts, shape_warnings
from pipeline.surface.clean import (
    Cleaning,
    clip_to_sphere,
    count_seeing_views,
    remove_floaters,
    remove_outside_masks,
    remove_unseen,
)
from pipeline.surface.colour import VertexColours, colour_vertices
from pipeline.surface.config import MeshConfig
from pipeline.surface.extract import Extraction, Sdf, extract_mesh
from pipeline.surface.holes import fill_holes
from pipeline.surface.save import mean_camera_up
from pipeline.surface.simplify import simplify
from pipeline.surface.texture import TexturedMesh, texture_mesh
from pipeline.surface.views import Views, back_facing_fraction

SIGHT_TOLERANCE_CELLS = 1.5
"""How deep below the first hit a vertex still counts as seen, in lattice cells."""


@dataclass(frozen=True)
class Surface:
    """A finished surface.

    Attributes:
        mesh: world frame, faces outward.
        colours: of the vertices.
        figures: counts, what was removed, costs; plain data.
        warnings: what a user should look at.
        textured: the same surface with a texture; None where none was asked for.
    """

    mesh: trimesh.Trimesh
    colours: VertexColours
    figures: dict[str, Any]
    warnings: list[str]
    textured: TexturedMesh | None = None


def build_surface(
    sdf: Sdf,
    views: Views,
    scale_mat: NDArray,
    sparse_points: NDArray,
    config: MeshConfig,
    device: str,
    progress: Progress,
    up: NDArray | None = None,
    backdrop: Backdrop | None = None,
) -> Surface:
    """Extract, clean and colour.

    Args:
        sdf: trained field in the normalised frame.
        views: cameras in the normalised frame.
        scale_mat: (4, 4) unit sphere → world.
        sparse_points: (P, 3) in the normalised frame; may be empty.
        device: where the field wants its points.
        up: (3,) unit direction; as the cameras have it where it is not told.
        backdrop: what rays show beyond the region of interest; None = not known.

    Raises:
        InputError: the field has no surface, or nothing is left after cleaning.
    """
    extraction = _extract(sdf, config, device, progress)
    tolerance = SIGHT_TOLERANCE_CELLS * extraction.cell
    up = mean_camera_up(views.c2w) if up is None else up
    cleaning = Cleaning(extraction.mesh)
    _keep_what_is_seen(cleaning, views, config, tolerance, up, progress, backdrop)
    _keep_what_is_large(cleaning, sparse_points, config, 3 * extraction.cell, progress)
    mesh, changes = _finish(cleaning.mesh, config, progress)
    colours = colour_vertices(mesh, views, tolerance, config.blended_views, progress)
    shape = measure_shape(mesh, extraction.cell)
    back_facing = back_facing_fraction(RayScene(mesh.vertices, mesh.faces), views)
    outward = outward_fraction(sdf, mesh, extraction.cell, device)
    figures = {
        "vertices": len(mesh.vertices),
        "faces": len(mesh.faces),
        **asdict(shape),
        "back_facing_fraction": back_facing,
        "outward_fraction": outward,
        "verdicts": shape_verdicts(shape, back_facing, outward),
        "coloured_fraction": float((colours.seen_by > 0).mean()),
        "removed": cleaning.removed(),
        "missed_fraction": cleaning.missed_fraction,
        **changes,
        "field_evaluations": extraction.evaluations,
        "dense_evaluations": extraction.dense_evaluations,
        "cell_normalised": extraction.cell,
    }
    textured = None
    if config.texture:
        textured = texture_mesh(mesh, views, colours.rgb, tolerance, config.texture_size, progress)
        figures["texture"] = textured.figures
    radius, centre = scale_mat[0, 0], scale_mat[:3, 3]
    world = trimesh.Trimesh(mesh.vertices * radius + centre, mesh.faces, process=False)
    return Surface(world, colours, figures, shape_warnings(shape, back_facing), textured)


def _extract(sdf: Sdf, config: MeshConfig, device: str, progress: Progress) -> Extraction:
    extraction = extract_mesh(
        sdf,
        config.resolution,
        lipschitz=config.lipschitz,
        device=device,
        chunk_points=config.chunk_points,
        progress=progress,
    )
    if len(extraction.mesh.faces) == 0:
        raise InputError(
            "the trained field has no surface inside the region of interest",
            hint="train longer; if the region of interest misses the object, set "
            "`scene.roi_center` and `scene.roi_radius` by hand",
        )
    return extraction


def _finish(
    mesh: trimesh.Trimesh, config: MeshConfig, progress: Progress
) -> tuple[trimesh.Trimesh, dict[str, Any]]:
    """Holes and number of faces as asked for, and what that changed."""
    changes: dict[str, Any] = {}
    if config.fill_holes > 0:
        mesh, filled = fill_holes(mesh, config.fill_holes)
        changes["holes"] = asdict(filled)
        progress.note(
            f"holes: closed {filled.closed} of {filled.found} with {filled.faces_added} faces"
        )
    if config.simplify > 0:
        before = len(mesh.faces)
        mesh = simplify(mesh, config.simplify)
        changes["simplified"] = {"faces_before": before, "faces_after": len(mesh.faces)}
        progress.note(f"simplify: {before} → {len(mesh.faces)} faces")
    return mesh, changes


def _keep_what_is_seen(
    cleaning: Cleaning,
    views: Views,
    config: MeshConfig,
    tolerance: float,
    up: NDArray,
    progress: Progress,
    backdrop: Backdrop | None,
) -> None:
    """Cut off what lies outside of region and masks, what too few photos see, and what they do not
    tell from the backdrop."""
    clip_to_sphere(cleaning)
    # seen before anything is taken away, so that nothing comes into sight by the cleaning
    seen_by = count_seeing_views(cleaning.mesh, views, tolerance, progress)
    if config.use_masks and views.mask_paths:
        stays = remove_outside_masks(cleaning, views, config.mask_margin * views.width)
        seen_by = seen_by[stays]
    if config.views_needed > 0:
        remove_unseen(cleaning, seen_by, min(config.views_needed, len(views)), up)
    if config.remove_backdrop and backdrop is not None:
        remove_backdrop(cleaning, views, backdrop, tolerance, progress)


def _keep_what_is_large(
    cleaning: Cleaning,
    sparse_points: NDArray,
    config: MeshConfig,
    reach: float,
    progress: Progress,
) -> None:
    """Drop floaters, and say what all steps removed."""
    remove_floaters(
        cleaning, config.min_component_fraction, sparse_points, config.min_component_points, reach
    )
    for removal in cleaning.removals:
        progress.note(
            f"{removal.step}: removed {removal.faces} faces ({removal.area_fraction:.1%})"
        )


def outward_fraction(
    sdf: Sdf, mesh: trimesh.Trimesh, cell: float, device: str, samples: int = 4096
) -> float:
    """Share of (evenly picked) faces whose normal points to where the field grows."""
    picked = np.linspace(0, len(mesh.faces) - 1, min(samples, len(mesh.faces))).astype(np.int64)
    offset = mesh.face_normals[picked] * cell / 2
    centres = mesh.triangles_center[picked]
    with torch.no_grad():
        out, inside = (
            sdf(torch.as_tensor(points, dtype=torch.float32, device=device)).reshape(-1)
            for points in (centres + offset, centres - offset)
        )
    return float((out > inside).float().mean())
