"""Where the first mapping leaves doubt, others are asked, and the one that they confirm is taken.

One mapping that is wrong looks as good as a right one. Mappings that start elsewhere or work in
another way are wrong in other ways: views that two of them place alike are to be believed. Among
mappings that are confirmed alike, matches that none was adjusted to decide.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy as np
import pycolmap

from pipeline.progress import Progress
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.consistency import Consistency, check_consistency
from pipeline.sfm.heldout import HeldOut, explain, hold_out
from pipeline.sfm.lookalikes import differences_deg
from pipeline.sfm.mapping import MIN_VIEWS, Mapping, map_incrementally
from pipeline.sfm.twoview import TwoViewTable

DOUBTFUL_SHARE = 0.1
"""Contradicting pairs from which on a second opinion is wanted."""
EXPECTED_VIEWS = 0.9
SAME_DEG = 2.0
"""Rotations this close are the same view placed alike."""
EQUALLY_CONFIRMED = 1
"""Mappings with so many confirmed views less than the best are on a par with it."""


@dataclass(frozen=True)
class Opinion:
    """What one mapping says.

    Attributes:
        kind: how it was made.
        registered: views of its largest model.
        confirmed: those of them that another mapping turns alike.
        contradicting_share: of its strong pairs.
        track_length: mean views a point.
        heldout_explained: share of the held-out observations that it reprojects well.
        heldout_median_px: median reprojection error of these; None where there are none.
    """

    kind: str
    registered: int
    confirmed: int
    contradicting_share: float
    track_length: float
    heldout_explained: float
    heldout_median_px: float | None


def is_doubtful(mapping: Mapping, consistency: Consistency, photo_count: int) -> bool:
    """Whether the first mapping should not be believed on its own."""
    return (
        mapping.relaxed
        or len(mapping.models) > 1
        or mapping.models[0].num_reg_images() < EXPECTED_VIEWS * photo_count
        or consistency.share > DOUBTFUL_SHARE
    )


def most_confirmed(
    first: Mapping,
    table: TwoViewTable,
    database: Path,
    images_dir: Path,
    folder: Path,
    photo_count: int,
    config: SfmConfig,
    seed: int,
    progress: Progress,
) -> tuple[Mapping, dict[str, Any]]:
    """Ask a mapping from another start and a global one, and take what agrees best.

    Returns:
        The mapping that `best_opinion` prefers, and all opinions for `sfm.json`.
    """
    progress.note("the first mapping leaves doubt: two others are asked")
    start = _other_start(first.models[0])
    again = map_incrementally(
        database,
        images_dir,
        folder,
        photo_count,
        config,
        seed + 1,
        progress,
        start,
        only_relaxed=first.relaxed,
    )
    asked = {
        "incremental": first,
        "incremental from another photo": again,
        "global": _map_globally(database, images_dir, folder, config, seed),
    }
    found = {kind: mapping for kind, mapping in asked.items() if mapping.models}
    held_out = hold_out(table, seed)
    opinions = [_opinion(kind, found, table, held_out) for kind in found]
    best = best_opinion(opinions)
    return found[best.kind], {"taken": best.kind, "opinions": [asdict(o) for o in opinions]}


def best_opinion(opinions: list[Opinion]) -> Opinion:
    """Of those that others confirm most, the one that explains held-out matches best.

    Where that is equal too, to a hundredth: more confirmed views, more views, longer tracks, the
    first.
    """
    most = max(opinion.confirmed for opinion in opinions)
    on_a_par = [o for o in opinions if o.confirmed >= most - EQUALLY_CONFIRMED]
    return max(
        on_a_par,
        key=lambda o: (round(o.heldout_explained, 2), o.confirmed, o.registered, o.track_length),
    )


def confirmed_views(
    model: pycolmap.Reconstruction, others: list[pycolmap.Reconstruction]
) -> set[int]:
    """Image ids that at least one of the others turns as the model does, up to a common turn."""
    confirmed: set[int] = set()
    for other in others:
        shared = sorted(set(model.reg_image_ids()) & set(other.reg_image_ids()))
        if len(shared) < MIN_VIEWS:
            continue
        own, theirs = (
            np.stack([m.image(i).cam_from_world().rotation.matrix() for i in shared])
            for m in (model, other)
        )
        close = differences_deg(own, theirs) < SAME_DEG
        # two always agree up to a common turn
        if close.sum() >= MIN_VIEWS:
            confirmed.update(i for i, same in zip(shared, close, strict=True) if same)
    return confirmed


def _opinion(
    kind: str, found: dict[str, Mapping], table: TwoViewTable, held_out: HeldOut
) -> Opinion:
    model = found[kind].models[0]
    explained = explain(model, held_out)
    others = [m for name, mapping in found.items() if name != kind for m in mapping.models]
    return Opinion(
        kind=kind,
        registered=model.num_reg_images(),
        confirmed=len(confirmed_views(model, others)),
        contradicting_share=check_consistency(model, table).share,
        track_length=float(model.compute_mean_track_length()),
        heldout_explained=explained.share,
        heldout_median_px=explained.median_px if np.isfinite(explained.median_px) else None,
    )


def _other_start(model: pycolmap.Reconstruction) -> int:
    """A photo of middling rank by its points: the first mapping started at the top."""
    ranked = sorted(model.reg_image_ids(), key=lambda i: (-model.image(i).num_points3D, i))
    return ranked[len(ranked) // 2]


def _map_globally(
    database: Path, images_dir: Path, folder: Path, config: SfmConfig, seed: int
) -> Mapping:
    """Global mapping (Pan et al., "Global structure-from-motion revisited", ECCV 2024)."""
    options = pycolmap.GlobalPipelineOptions()
    options.num_threads = 1  # the same photos must give the same model
    options.random_seed = seed
    options.min_model_size = MIN_VIEWS
    options.min_num_matches = config.min_inliers
    target = folder / "mapping_global"
    rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    try:
        found = pycolmap.global_mapping(database, images_dir, target, options)
    except RuntimeError:
        found = {}
    rmtree(target)
    models = [m for m in found.values() if m.num_reg_images() >= MIN_VIEWS]
    models.sort(key=lambda m: (m.num_reg_images(), m.num_points3D()), reverse=True)
    return Mapping(models, relaxed=False)
