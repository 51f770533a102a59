"""Everything the report shows, gathered from the stages' artifacts.

Every part may be missing: a run can enter at any stage, and a report of half a run is better than
none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import InputError
from pipeline.formats.case import common_size, sorted_images
from pipeline.formats.idr import IdrCameras, load_idr_cameras
from pipeline.formats.matches import load_matches
from pipeline.formats.sparse import SparseCloud, load_sparse
from pipeline.formats.views import ViewRecord, load_views
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.metrics.error_map import FILE
from pipeline.surface.decimate import DisplayMesh
from pipeline.surface.save import mean_camera_up

_PLAIN_NAMES = ("photos", "images", "image", "input")
RENDER_KINDS = ("photo", "render", "normal", "error")


@dataclass(frozen=True)
class Photo:
    """One photo of the user.

    Attributes:
        name: file name.
        path: a picture of it, None if it could not be read.
        index: position among the registered views, None if it is not one.
        reason: why it is not registered.
    """

    name: str
    path: Path | None
    index: int | None
    reason: str | None


@dataclass(frozen=True)
class Textured:
    """The mesh with places in a picture; colours of its vertices are the picture's there."""

    mesh: DisplayMesh
    picture: Image.Image


@dataclass(frozen=True)
class MeshError:
    """Distances (V,) of the mesh's vertices from the true surface, radii of the true object.

    `threshold` and `cap` are those of the evaluation, in the same unit.
    """

    distance: NDArray
    threshold: float
    cap: float


@dataclass(frozen=True)
class StageRecord:
    """One stage of the run, from its manifest."""

    name: str
    status: str
    reasons: list[str]
    figures: dict[str, Any]
    settings: dict[str, Any]
    options: dict[str, Any]
    version: int
    seed: int
    started_at: str
    wall_s: float
    peak_memory_mb: float
    libraries: dict[str, str]


@dataclass
class ReportData:
    """What the report shows; None or empty where a stage did not run or gave nothing."""

    title: str
    photos: list[Photo] = field(default_factory=list)
    ingest_warnings: list[str] = field(default_factory=list)
    image_size: tuple[int, int] | None = None
    before: IdrCameras | None = None
    after: IdrCameras | None = None
    up: NDArray = field(default_factory=lambda: np.array([0.0, 0.0, 1.0]))
    unit: str = "unknown"
    sparse: SparseCloud | None = None
    match_counts: NDArray | None = None
    sfm: dict[str, Any] = field(default_factory=dict)
    scene: dict[str, Any] = field(default_factory=dict)
    history: dict[str, NDArray] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    mesh: DisplayMesh | None = None
    textured: Textured | None = None
    mesh_facts: dict[str, Any] = field(default_factory=dict)
    mesh_error: MeshError | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    renders: dict[int, dict[str, Path]] = field(default_factory=dict)
    stages: list[StageRecord] = field(default_factory=list)

    @property
    def registered(self) -> list[Photo]:
        """Registered photos by index."""
        known = [photo for photo in self.photos if photo.index is not None]
        return sorted(known, key=lambda photo: photo.index or 0)

    @property
    def unit_label(self) -> str:
        """Short name of the world frame's unit."""
        return "scene units" if self.unit == "unknown" else self.unit

    def view_name(self, index: int) -> str:
        """Photo name of the registered view `index`."""
        names = {photo.index: photo.name for photo in self.photos}
        return names.get(index, f"view {index}")

    def pose_change(self) -> tuple[NDArray, NDArray] | None:
        """Rotation in degrees (N,) and centre movement in world units (N,) by refinement."""
        if self.before is None or self.after is None or len(self.before) != len(self.after):
            return None
        a, b = self.before.c2w, self.after.c2w
        rotation_deg = rotation_angles_deg(a[:, :3, :3], b[:, :3, :3])
        return rotation_deg, np.linalg.norm(a[:, :3, 3] - b[:, :3, 3], axis=1)


def run_title(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of the user's folder of photos, or of the case, where it is known.

    A folder that is called "photos" says nothing; the one around it does.
    """
    photos = manifests.get("ingest", {}).get("paths", {}).get("photos")
    source = photos or manifests.get("scene", {}).get("paths", {}).get("case")
    if not source:
        return "Reconstruction"
    path = Path(source)
    return path.parent.name or path.name if path.name.lower() in _PLAIN_NAMES else path.name


def gather(
    inputs: Mapping[str, Path], manifests: Mapping[str, Mapping[str, Any]], title: str
) -> ReportData:
    """Read what there is.

    Args:
        inputs: artifact folders by stage name; any may be absent.
        manifests: the stages' manifests by name.
        title: name of the run for a person.

    Raises:
        InputError: a file is there but damaged.
    """
    records = [_stage_record(name, manifest) for name, manifest in manifests.items()]
    data = ReportData(title, stages=sorted(records, key=lambda record: record.started_at))
    scene, train = inputs.get("scene"), inputs.get("train")
    images = sorted_images(scene / "image") if scene and (scene / "image").is_dir() else []
    data.image_size = common_size(images[:1]) if images else None
    data.photos, data.ingest_warnings = _photos(inputs.get("ingest"), scene, images)
    data.sfm = _json(inputs.get("sfm"), "sfm.json")
    data.scene = _json(scene, "scene.json")
    data.unit = str(data.scene.get("unit", "unknown"))
    data.before = _cameras(scene, "cameras_colmap.npz")
    data.after = _cameras(train, "cameras_refine_porf.npz")
    data.sparse = load_sparse(scene) if scene else None
    if data.before is not None:
        data.match_counts = _match_counts(inputs.get("matches"), len(data.before))
    history = _json(train, "history.json")
    if history.get("rows"):
        columns = np.array(history["rows"], dtype=np.float64).T
        data.history = dict(zip(history["columns"], columns, strict=True))
    data.train = _json(train, "train.json")
    data.mesh_facts = _json(inputs.get("mesh"), "mesh.json")
    data.mesh = _mesh(inputs.get("mesh"))
    data.textured = _textured(inputs.get("mesh"))
    data.metrics = _json(inputs.get("evaluate"), "metrics.json")
    data.mesh_error = _mesh_error(inputs.get("evaluate"), data.mesh)
    data.renders = _renders(inputs.get("evaluate"))
    data.up = _up(data)
    return data


def _json(folder: Path | None, name: str) -> dict[str, Any]:
    if folder is None or not (folder / name).is_file():
        return {}
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{folder / name} is not valid JSON ({error})",
            hint=f"force the stage `{folder.name}` to write it again",
        ) from error
    return content if isinstance(content, dict) else {}


def _photos(
    ingest: Path | None, scene: Path | None, scene_images: list[Path]
) -> tuple[list[Photo], list[str]]:
    record = _json(ingest, "ingest.json")
    views = _views(scene)
    files = {p["name"]: p for p in record.get("photos", [])}
    photos = []
    for name in sorted(files.keys() | views.keys()):
        file, view = files.get(name, {}), views.get(name)
        index = view.index if view else None
        path: Path | None = None
        if ingest and file.get("file"):
            path = ingest / file["file"]
        elif index is not None and index < len(scene_images):
            path = scene_images[index]
        reason = (view.reason if view else None) or file.get("reason")
        photos.append(Photo(name, path if path and path.is_file() else None, index, reason))
    return photos, [str(text) for text in record.get("warnings", [])]


def _views(scene: Path | None) -> dict[str, ViewRecord]:
    if scene is None or not (scene / "views.json").is_file():
        return {}
    return {view.name: view for view in load_views(scene / "views.json")}


def _cameras(folder: Path | None, name: str) -> IdrCameras | None:
    if folder is None or not (folder / name).is_file():
        return None
    return load_idr_cameras(folder / name)


def _match_counts(folder: Path | None, view_count: int) -> NDArray | None:
    """Number of matches (N, N) between views."""
    if folder is None or not (folder / "colmap_matches").is_dir():
        return None
    counts = np.zeros((view_count, view_count), dtype=np.int64)
    for index, view in enumerate(load_matches(folder / "colmap_matches", view_count)):
        for source, matches_px in zip(view.sources, view.matches_px, strict=True):
            counts[index, source] = len(matches_px)
    return np.maximum(counts, counts.T)


def _mesh(folder: Path | None) -> DisplayMesh | None:
    if folder is None or not (folder / "mesh.ply").is_file():
        return None
    mesh = trimesh.load(folder / "mesh.ply", process=False)
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        return None
    rgb = np.asarray(mesh.visual.vertex_colors)[:, :3]
    return DisplayMesh(
        np.asarray(mesh.vertices), np.asarray(mesh.vertex_normals), np.asarray(mesh.faces), rgb
    )


def _textured(folder: Path | None) -> Textured | None:
    """The mesh of `mesh_textured.glb` in the world frame; its node's matrix is for viewers."""
    if folder is None or not (folder / "mesh_textured.glb").is_file():
        return None
    scene = trimesh.load_scene(folder / "mesh_textured.glb", process=False)
    mesh = next(iter(scene.geometry.values()))
    picture = mesh.visual.material.baseColorTexture.convert("RGB")
    uv = np.asarray(mesh.visual.uv) * [1, -1] + [0, 1]  # trimesh counts from the bottom
    texel = np.clip((uv * picture.size).astype(np.int64), 0, np.array(picture.size) - 1)
    rgb = np.asarray(picture)[texel[:, 1], texel[:, 0]]
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    display = DisplayMesh(vertices, np.asarray(mesh.vertex_normals), faces, rgb, uv)
    return Textured(display, picture)


def _mesh_error(evaluate: Path | None, mesh: DisplayMesh | None) -> MeshError | None:
    """None without ground truth, or where the errors are of another mesh."""
    path = evaluate / FILE if evaluate else None
    if path is None or mesh is None or not path.is_file():
        return None
    with np.load(path) as stored:
        found = MeshError(stored["distance"], float(stored["threshold"]), float(stored["cap"]))
    return found if len(found.distance) == len(mesh.vertices) else None


def _renders(evaluate: Path | None) -> dict[int, dict[str, Path]]:
    """Pictures by view index and kind."""
    found: dict[int, dict[str, Path]] = {}
    if evaluate is None or not (evaluate / "renders").is_dir():
        return found
    for path in sorted((evaluate / "renders").glob("*.png")):
        index, _, kind = path.stem.partition("_")
        if index.isdigit() and kind in RENDER_KINDS:
            found.setdefault(int(index), {})[kind] = path
    return found


def _up(data: ReportData) -> NDArray:
    glb_up = data.mesh_facts.get("glb_up")
    if glb_up:
        return np.asarray(glb_up["direction"], dtype=np.float64)
    if data.scene.get("up") is not None:
        return np.asarray(data.scene["up"], dtype=np.float64)
    cameras = data.after or data.before
    return mean_camera_up(cameras.c2w) if cameras else np.array([0.0, 0.0, 1.0])


def _stage_record(name: str, manifest: Mapping[str, Any]) -> StageRecord:
    recipe = manifest.get("recipe", {})
    verdict = manifest.get("verdict", {})
    return StageRecord(
        name=name,
        status=verdict.get("status", "ok"),
        reasons=list(verdict.get("reasons", [])),
        figures=dict(verdict.get("figures", {})),
        settings=dict(verdict.get("settings", {})),
        options=dict(recipe.get("options", {})),
        version=int(recipe.get("version", 0)),
        seed=int(recipe.get("seed", 0)),
        started_at=str(manifest.get("started_at", "")),
        wall_s=float(manifest.get("wall_s", 0.0)),
        peak_memory_mb=float(manifest.get("peak_memory_mb", 0.0)),
        libraries=dict(manifest.get("libraries", {})),
    )
