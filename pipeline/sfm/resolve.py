"""A contradicted model mapped anew without the look-alikes, if these can be told."""

import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from pipeline.progress import Progress
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.consistency import check_consistency
from pipeline.sfm.database import publish_database
from pipeline.sfm.lookalikes import Trusted, difference_deg, trusted_pairs
from pipeline.sfm.mapping import Mapping, map_incrementally
from pipeline.sfm.twoview import TwoViewTable, read_two_views

MAX_CONTRADICTING = 0.1
MAX_FROM_AVERAGE_DEG = 3.0


@dataclass(frozen=True)
class Resolved:
    """A model that its trusted pairs support.

    Attributes:
        mapping: its models.
        database: published database without the look-alikes.
        table: what it holds.
        report: for `sfm.json`.
    """

    mapping: Mapping
    database: Path
    table: TwoViewTable
    report: dict[str, Any]


def resolve_lookalikes(
    working: Path,
    images_dir: Path,
    folder: Path,
    table: TwoViewTable,
    contradicted: pycolmap.Reconstruction,
    config: SfmConfig,
    seed: int,
    progress: Progress,
) -> Resolved | None:
    """Set look-alikes aside and map again; None where that leads to no model to be believed.

    The new model must register as many photos, agree with the averaged rotations, and not be
    contradicted by the pairs that are left.

    Args:
        working: database of the attempt; stays as it is.
        contradicted: the model that pairs disagree with; only its focal lengths are used.
    """
    cameras = _cameras(working, contradicted)
    trusted = trusted_pairs(table, cameras, seed, progress)
    if trusted is None:
        return None
    pruned = folder / "trusted.db"
    shutil.copyfile(working, pruned)
    _keep_pairs(pruned, trusted)
    mapping = map_incrementally(pruned, images_dir, folder, len(cameras), config, seed, progress)
    if not mapping.models:
        return None
    model = mapping.models[0]
    published = folder / "trusted_published.db"
    published.unlink(missing_ok=True)
    publish_database(pruned, published)
    left = read_two_views(published)
    off_deg = _from_average_deg(model, trusted)
    contradicting = check_consistency(model, left).share
    if model.num_reg_images() < contradicted.num_reg_images():
        return None
    if off_deg > MAX_FROM_AVERAGE_DEG or contradicting > MAX_CONTRADICTING:
        return None
    report = {
        "pairs_set_aside": trusted.set_aside,
        "pairs_kept": len(trusted.pairs),
        "from_averaged_rotations_deg": off_deg,
        "contradicting_share_before": check_consistency(contradicted, table).share,
    }
    return Resolved(mapping, published, left, report)


def _cameras(database: Path, model: pycolmap.Reconstruction) -> dict[int, pycolmap.Camera]:
    """Camera by image id, adjusted by the model where it has it."""
    with pycolmap.Database.open(str(database)) as opened:
        stored = {camera.camera_id: camera for camera in opened.read_all_cameras()}
        images = opened.read_all_images()
    known = dict(model.cameras)
    return {i.image_id: known.get(i.camera_id, stored[i.camera_id]) for i in images}


def _keep_pairs(database: Path, trusted: Trusted) -> None:
    kept = {pycolmap.image_pair_to_pair_id(a, b) for a, b in trusted.pairs}
    connection = sqlite3.connect(database)
    try:
        stored = connection.execute("SELECT pair_id FROM two_view_geometries").fetchall()
        gone = [row for row in stored if row[0] not in kept]
        for name in ("two_view_geometries", "matches"):
            connection.executemany(f"DELETE FROM {name} WHERE pair_id = ?", gone)
        connection.commit()
    finally:
        connection.close()


def _from_average_deg(model: pycolmap.Reconstruction, trusted: Trusted) -> float:
    index = {image_id: n for n, image_id in enumerate(trusted.image_ids)}
    shared = [i for i in sorted(model.reg_image_ids()) if i in index]
    mapped = np.stack([model.image(i).cam_from_world().rotation.matrix() for i in shared])
    return difference_deg(mapped, trusted.w2c_rotations[[index[i] for i in shared]])
