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


def _present(values: dict[str, Any], names: dict[str, str]) -> list[Fact]:
    return [
        Fact(name, number(values[key]))
        for key, name in names.items()
        if isinstance(values.get(key), str | int | float | bool)
    ]
