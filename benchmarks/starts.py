"""Starting cameras of the benchmark of accuracy."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from benchmarks.classical import adjusted_by_colmap
from benchmarks.plain_colmap import default_model
from flows.case_folder import CaseFolder
from pipeline.formats.case import Case, load_case
from pipeline.formats.idr import IdrCameras
from pipeline.formats.matches import ViewMatches
from pipeline.formats.views import load_views, registered_names
from pipeline.geometry.pixels import colmap_to_idr_K, colmap_to_idr_px
from pipeline.geometry.rotations import rotation_angles_deg
from pipeline.geometry.similarity import umeyama
from pipeline.metrics.truth import assign_truth, load_ground_truth_cameras
from pipeline.sfm.colmap import c2w_of
from pipeline.sfm.twoview import TwoViewTable, read_two_views
from pipeline.sfm.undistortion import undistort_points_px


@dataclass(frozen=True)
class Source:
    """A finished run with its truth.

    Attributes:
        artifacts: folders by stage.
        case: the run's own case.
        names: photo of each view.
        truth: the file of true cameras; a true mesh may lie beside it.
        true_c2w: (V, 4, 4), the truth's frame.
        true_K: (V, 3, 3).
        photos: the photos' folder.
    """

    artifacts: dict[str, Path]
    photos: Path
    case: Case
    names: list[str]
    truth: Path
    true_c2w: NDArray
    true_K: NDArray


@dataclass(frozen=True)
class Start:
    """A case to refine.

    Attributes:
        classical: poses (V, 4, 4) by COLMAP's bundle adjustment from the same start and matches.
        calibrate: whether the intrinsics are refined as well.
    """

    case: Case
    true_c2w: NDArray
    classical: Callable[[], NDArray]
    calibrate: bool = False

    @classmethod
    def of_case(cls, case: Case, true_c2w: NDArray) -> "Start":
        """A start whose intrinsics stay."""
        return cls(case, true_c2w, lambda: adjusted_by_colmap(case))


def open_source(run: Path, truth: Path) -> Source:
    """Read a finished run and the truth of its photos."""
    folder = CaseFolder(run)
    keys = folder.load_record().keys
    artifact = {name: folder.store.artifact(name, keys[name]) for name in keys}
    names = registered_names(load_views(artifact["scene"] / "views.json"))
    true = load_ground_truth_cameras(truth)
    every = [view.name for view in load_views(artifact["scene"] / "views.json")]
    order = assign_truth(true, every, names).truths
    case = load_case(artifact["scene"], artifact["matches"])
    photos = artifact["ingest"] / "images"
    cameras = true.cameras
    return Source(artifact, photos, case, names, truth, cameras.c2w[order], cameras.K[order])


def rotation_error_deg(c2w: NDArray, truth: NDArray) -> float:
    """Mean rotation error after a similarity on the centres (Umeyama)."""
    aligned = umeyama(c2w[:, :3, 3], truth[:, :3, 3]).apply_c2w(c2w)
    return float(rotation_angles_deg(aligned[:, :3, :3], truth[:, :3, :3]).mean())


def started_from(source: Source, c2w_true_frame: NDArray) -> Start:
    """The run's case with poses that are given in the truth's frame."""
    own = source.case.cameras
    back = umeyama(source.true_c2w[:, :3, 3], own.c2w[:, :3, 3])
    cameras = replace(own, c2w=back.apply_c2w(c2w_true_frame))
    return Start.of_case(replace(source.case, cameras=cameras), source.true_c2w)


def disturbed(source: Source, seed: int, by_deg: float = 0.5, by_percent: float = 1.0) -> Start:
    """True poses turned and moved, each on its own; percent of the distance to the object."""
    rng = np.random.default_rng(seed)
    count = len(source.true_c2w)
    axes = rng.normal(size=(count, 3))
    axes *= np.deg2rad(by_deg) / np.linalg.norm(axes, axis=1, keepdims=True)
    move = rng.normal(size=(count, 3))
    return started_from(source, _moved(source.true_c2w, axes, move, by_percent))


def drift(source: Source, seed: int) -> Start:
    """True poses with a smooth error along the sequence: 0.75° and 1% in the mean."""
    rng = np.random.default_rng(seed)
    along = np.linspace(0, 2 * np.pi, len(source.true_c2w), endpoint=False)
    waves = np.stack([f(k * along) for k in (1, 2) for f in (np.sin, np.cos)], axis=1)
    turn, move = (waves @ rng.normal(size=(4, 3)) for _ in range(2))
    turn *= np.deg2rad(0.75) / np.linalg.norm(turn, axis=1).mean()
    return started_from(source, _moved(source.true_c2w, turn, move, 1.0))


def _moved(c2w: NDArray, turn: NDArray, move: NDArray, by_percent: float) -> NDArray:
    moved = c2w.copy()
    middle = c2w[:, :3, 3].mean(axis=0)
    distance = np.linalg.norm(c2w[:, :3, 3] - middle, axis=1).mean()
    moved[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix() @ c2w[:, :3, :3]
    step = 0.01 * by_percent * distance
    moved[:, :3, 3] += move * step / np.linalg.norm(move, axis=1).mean()
    return moved


def colmap_default(source: Source, true_K: bool, folder: Path) -> Start:
    """COLMAP's default mapping on the run's features, with its own or the true intrinsics."""
    model = pycolmap.Reconstruction(
        str(default_model(source.artifacts["sfm"], source.photos, folder))
    )
    by_name = {image.name: image for image in model.images.values() if image.has_pose}
    chosen = [i for i, name in enumerate(source.names) if _file(source, name) in by_name]
    images = [by_name[_file(source, source.names[i])] for i in chosen]
    c2w = np.stack([c2w_of(image) for image in images])
    K = source.true_K[chosen] if true_K else np.stack([_ideal_K(image) for image in images])
    table = read_two_views(source.artifacts["sfm"] / "database.db")
    matches = _matches(table, images, None if true_K else K)
    truth = source.true_c2w[chosen]
    own = source.case.cameras
    into_world = umeyama(c2w[:, :3, 3], own.c2w[chosen][:, :3, 3])
    cameras = IdrCameras(K, into_world.apply_c2w(c2w), own.scale_mat)
    paths = [source.case.image_paths[i] for i in chosen]
    case = replace(source.case, cameras=cameras, matches=matches, image_paths=paths)

    if true_K:
        return Start.of_case(case, truth)
    return Start(case, truth, lambda: _bundle_adjusted(model, images), calibrate=True)


def at_the_truth(source: Source, folder: Path) -> Start:
    """The true cameras with the true intrinsics: what the matches make of them tells how well
    truth and photos agree."""
    case = colmap_default(source, True, folder).case
    back = umeyama(source.true_c2w[:, :3, 3], source.case.cameras.c2w[:, :3, 3])
    cameras = replace(case.cameras, c2w=back.apply_c2w(source.true_c2w))
    return Start.of_case(replace(case, cameras=cameras), source.true_c2w)


def _file(source: Source, name: str) -> str:
    return next(p.name for p in source.photos.iterdir() if p.stem == Path(name).stem)


def _ideal_K(image: pycolmap.Image) -> NDArray:
    return colmap_to_idr_K(np.asarray(image.camera.calibration_matrix()))


def _matches(
    table: TwoViewTable, images: list[pycolmap.Image], K: NDArray | None
) -> list[ViewMatches]:
    """Verified matches in the pixels of K, or in the photos' own where there is no distortion."""
    index = {image.image_id: i for i, image in enumerate(images)}
    xy = {}
    for image in images:
        raw = table.keypoints_px[image.image_id]
        ideal = None if K is None else K[index[image.image_id]]
        xy[image.image_id] = (
            colmap_to_idr_px(raw)
            if ideal is None
            else undistort_points_px(image.camera, ideal, raw)
        )
    views = [ViewMatches([], [], []) for _ in images]
    for pair in table.pairs:
        if pair.image1 in index and pair.image2 in index and len(pair.features) >= 15:
            first, second = (
                xy[pair.image1][pair.features[:, 0]],
                xy[pair.image2][pair.features[:, 1]],
            )
            for a, b, i, j in (
                (first, second, index[pair.image1], index[pair.image2]),
                (second, first, index[pair.image2], index[pair.image1]),
            ):
                views[i].sources.append(j)
                views[i].matches_px.append(np.concatenate([a, b], axis=1).astype(np.float32))
                views[i].heldout.append(np.zeros(len(a), dtype=bool))
    return views


def _bundle_adjusted(model: pycolmap.Reconstruction, images: list[pycolmap.Image]) -> NDArray:
    """Poses (V, 4, 4) after COLMAP's bundle adjustment of everything, principal point included."""
    adjusted = pycolmap.Reconstruction(model)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_principal_point = True
    pycolmap.bundle_adjustment(adjusted, options)
    return np.stack([c2w_of(adjusted.image(image.image_id)) for image in images])


def starts(source: Source, name: str, folder: Path) -> dict[str, Callable[[int], Start]]:
    """The starts that make sense for a set, by name."""
    found: dict[str, Callable[[int], Start]] = {
        "sfm": lambda _: Start.of_case(source.case, source.true_c2w),
        "disturbed": lambda seed: disturbed(source, seed),
        "far off": lambda seed: disturbed(source, seed, 5.0, 5.0),
        "drift": lambda seed: drift(source, seed),
    }
    if (
        name == "dtu65"
    ):  # its photos have no distortion, so the true intrinsics fit them as they are
        found["default K"] = lambda _: colmap_default(source, False, folder)
        found["true K"] = lambda _: colmap_default(source, True, folder)
        found["truth"] = lambda _: at_the_truth(source, folder)
    return found
