"""Plain facts about cameras, region and mesh, as rows of a name and a value."""

from dataclasses import dataclass
from typing import Any

from pipeline.report.data import ReportData
from pipeline.report.words import number, percent


@dataclass(frozen=True)
class Fact:
    """A name and a value, both for a person."""

    name: str
    value: str


@dataclass(frozen=True)
class RemovalRow:
    """What one cleaning step removed."""

    step: str
    why: str
    faces: str
    share: str


_MESH = {
    "vertices": "Vertices",
    "faces": "Faces",
    "pieces": "Separate pieces",
    "watertight": "Closed everywhere",
    "open_edges": "Open edges",
    "area": "Area",
    "cell_normalised": "Lattice cell (radii of the region)",
}


def mesh_facts(data: ReportData) -> list[Fact]:
    """Counts and size of the mesh."""
    facts = _present(data.mesh_facts, _MESH)
    if "coloured_fraction" in data.mesh_facts:
        facts.append(Fact("Vertices with a colour", percent(data.mesh_facts["coloured_fraction"])))
    if "bounds" in data.mesh_facts:
        low, high = data.mesh_facts["bounds"]["low"], data.mesh_facts["bounds"]["high"]
        sides = " × ".join(number(float(b - a)) for a, b in zip(low, high, strict=True))
        facts.append(Fact("Size", f"{sides} {data.unit_label}"))
    return facts + finishing(data) + verdict_fact(data)


_VERDICTS = {
    "touches_boundary": "it ends at the region of interest's boundary",
    "object_cut": "the object may be cut off by it",
    "non_manifold": "some edges have more than two faces",
    "inside_out": "it is inside out",
}


def verdict_fact(data: ReportData) -> list[Fact]:
    """What the mesh's checks found, in words; nothing of an older mesh without them."""
    verdicts = data.mesh_facts.get("verdicts")
    if not isinstance(verdicts, dict):
        return []
    said = [text for name, text in _VERDICTS.items() if verdicts.get(name)]
    return [Fact("Checks", "; ".join(said) if said else "nothing found")]


def finishing(data: ReportData) -> list[Fact]:
    """What closing holes, simplifying and texturing did, where they were asked for."""
    facts = []
    holes, simplified = data.mesh_facts.get("holes"), data.mesh_facts.get("simplified")
    texture = data.mesh_facts.get("texture")
    if isinstance(holes, dict):
        facts.append(Fact("Holes closed", f"{number(holes['closed'])} of {number(holes['found'])}"))
    if isinstance(simplified, dict):
        before, after = number(simplified["faces_before"]), number(simplified["faces_after"])
        facts.append(Fact("Faces before simplifying", f"{before}, then {after}"))
    if isinstance(texture, dict):
        width, height = texture["size_px"]
        facts.append(
            Fact("Texture", f"{width} × {height} px in {number(texture['charts'])} charts")
        )
        facts.append(Fact("Textured by a photo", percent(texture["seen_area_fraction"])))
    return facts


def removals(data: ReportData) -> list[RemovalRow]:
    """What each cleaning step removed, and why."""
    return [
        RemovalRow(row["step"], row["why"], number(row["faces"]), percent(row["area_fraction"]))
        for row in data.mesh_facts.get("removed", [])
    ]


def sfm_facts(data: ReportData) -> list[Fact]:
    """How structure from motion and the choice of the region went."""
    sfm, scene = data.sfm, data.scene
    facts = _present(sfm, {"points": "Sparse points", "track_length_mean": "Views per point"})
    reprojection, pairs = sfm.get("reprojection_px"), sfm.get("pairs")
    if isinstance(reprojection, dict):
        facts.append(Fact("Median reprojection error", f"{number(reprojection['median'])} px"))
    if isinstance(pairs, dict):
        facts.append(
            Fact("Pairs with verified matches", f"{pairs['verified']} of {pairs['tried']}")
        )
    uncertainty = sfm.get("rotation_uncertainty")
    if isinstance(uncertainty, dict):
        facts += _rotation_error(uncertainty)
    step = (sfm.get("network") or {}).get("median_step_deg")
    if step is not None:
        facts.append(Fact("Usual angle to the next photo", f"{number(step)}°"))
    models = sorted({camera["model"] for camera in sfm.get("cameras", {}).values()})
    if models:
        facts.append(Fact("Camera model", ", ".join(models)))
    if "radius" in scene:
        facts.append(Fact("Radius of the region", f"{number(scene['radius'])} {data.unit_label}"))
    facts += _present(
        scene,
        {
            "region_source": "Region found from",
            "camera_distance_radii": "Distance of the cameras (radii)",
        },
    )
    if isinstance(scene.get("points_inside_fraction"), float):
        facts.append(Fact("Sparse points inside", percent(scene["points_inside_fraction"])))
    return facts


def _rotation_error(uncertainty: dict[str, Any]) -> list[Fact]:
    """Lower bounds: median over the views, what all share, the view of which least is known."""
    views = uncertainty["views_deg"]
    worst = max(views, key=views.get)
    return [
        Fact("Expected rotation error, at least", f"{number(uncertainty['median_deg'])}° (1 σ)"),
        Fact("Of it, common to all views", f"{number(uncertainty['common_deg'])}°"),
        Fact(f"Expected at {worst}, the largest", f"{number(views[worst])}°"),
    ]


def _present(values: dict[str, Any], names: dict[str, str]) -> list[Fact]:
    return [
        Fact(name, number(values[key]))
        for key, name in names.items()
        if isinstance(values.get(key), str | int | float | bool)
    ]
