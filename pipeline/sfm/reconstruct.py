"""Photos of one ingest to a calibrated model."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pycolmap

from pipeline.errors import InputError
from pipeline.formats.camera_source import load_cameras
from pipeline.formats.frame import WorldFrame
from pipeline.geometry.similarity import Similarity
from pipeline.imaging.records import IngestRecord, PhotoRecord, load_ingest
from pipeline.progress import Progress
from pipeline.sfm.advice import lost_groups, recapture_advice
from pipeline.sfm.calibration import Calibration, calibrate, calibration_as_given
from pipeline.sfm.colmap import quiet
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.consistency import check_consistency
from pipeline.sfm.database import create_database, publish_database
from pipeline.sfm.features import extract_features, file_name
from pipeline.sfm.given import (
    GivenCameras,
    assign_cameras,
    check_convention,
    triangulate_given,
)
from pipeline.sfm.gps import positions_m
from pipeline.sfm.mapping import Mapping, map_incrementally
from pipeline.sfm.matching import match_pairs, require_matcher
from pipeline.sfm.network import inspect_network, leave_out_loose
from pipeline.sfm.opinions import is_doubtful, most_confirmed
from pipeline.sfm.pairs import Pair, exhaustive_pairs, sparse_pairs
from pipeline.sfm.report import FEW_FEATURES, build_report, is_contradicted, unregistered
from pipeline.sfm.resolve import resolve_lookalikes
from pipeline.sfm.scale import apply_frame, find_frame
from pipeline.sfm.twoview import TwoViewTable, read_two_views
from pipeline.sfm.uncertainty import rotation_uncertainty

ENOUGH_SHARE = 0.8
"""Features inside the masks suffice if they register this share of the photos."""


@dataclass(frozen=True)
class SfmResult:
    """A calibrated model and the report for `sfm.json`."""

    model: pycolmap.Reconstruction
    report: dict[str, Any]


@dataclass(frozen=True)
class _Chosen:
    """The mapping to go on with, and the pairs that it rests on.

    `lookalikes` is what was set aside where repeated texture had misled the first mapping;
    `opinions` is what other mappings said where it left doubt.
    """

    mapping: Mapping
    database: Path
    table: TwoViewTable
    lookalikes: dict[str, Any] | None = None
    opinions: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Attempt:
    """Everything up to mapping, with or without masks.

    `laid_back` is the similarity that returned refined given cameras to their frame.
    """

    masked: bool
    image_ids: dict[str, int]
    features: dict[str, int]
    pairs_tried: int
    chosen: _Chosen
    laid_back: Similarity

    @property
    def mapping(self) -> Mapping:
        """The mapping that was chosen."""
        return self.chosen.mapping

    @property
    def table(self) -> TwoViewTable:
        """The verified pairs that it rests on."""
        return self.chosen.table

    @property
    def registered(self) -> int:
        """Views of its largest model."""
        return int(self.mapping.models[0].num_reg_images())


def reconstruct(
    ingest_dir: Path,
    out: Path,
    work: Path,
    config: SfmConfig,
    seed: int,
    progress: Progress,
    cameras: Path | None = None,
) -> SfmResult:
    """Features, matches, mapping and self-calibration; writes `sparse/` and `database.db`.

    Where there are masks, features inside them come first: on a turntable the background stands
    still. Where those do not register most photos, the whole photos are tried and the better of the
    two is taken: on a table the background helps. Features and matches of an interrupted attempt
    are found in `work` and used again.

    Args:
        cameras: the user's own cameras in any format of `load_cameras`; then nothing is mapped, and
            the model stays in their frame.

    Raises:
        InputError: the photos have no features, do not overlap, or give no model; the given cameras
            do not fit them.
    """
    quiet()
    require_matcher(config)
    pycolmap.set_random_seed(seed)
    ingest = load_ingest(ingest_dir / "ingest.json")
    given = assign_cameras(load_cameras(cameras), ingest, config) if cameras else None
    attempt = _best_attempt(ingest, ingest_dir, work, config, seed, progress, given)
    loose = leave_out_loose(attempt.mapping.models[0]) if given is None else {}
    model, calibration = _calibrated(attempt.mapping.models[0], given, config, progress)
    progress.note(f"calibration: {calibration.rationale}")
    frame = _placed(model, given, ingest, ingest_dir, config, seed, progress)
    report = build_report(
        ingest,
        attempt.mapping,
        model,
        calibration,
        check_consistency(model, attempt.table),
        _unregistered(ingest, attempt, loose, given),
        {"tried": attempt.pairs_tried, "verified": len(attempt.table.pairs)},
        attempt.features,
    )
    report["features_masked"] = attempt.masked
    report["frame"] = frame
    report["lookalikes"] = attempt.chosen.lookalikes
    report["opinions"] = attempt.chosen.opinions
    report["given_cameras"] = None if given is None else _given_report(given, attempt, config)
    report.update(_trust(model, ingest, attempt, report, estimated=given is None))
    (out / "sparse").mkdir(parents=True)
    model.write(str(out / "sparse"))
    shutil.copyfile(attempt.chosen.database, out / "database.db")
    return SfmResult(model, report)


def _unregistered(
    ingest: IngestRecord, attempt: _Attempt, loose: dict[str, int], given: GivenCameras | None
) -> list[dict[str, str]]:
    return unregistered(
        ingest,
        attempt.mapping,
        attempt.features,
        attempt.table,
        attempt.image_ids,
        loose,
        given.missing if given else (),
    )


def _trust(
    model: pycolmap.Reconstruction,
    ingest: IngestRecord,
    attempt: _Attempt,
    report: dict[str, Any],
    estimated: bool,
) -> dict[str, Any]:
    """What the cameras rest on, how far they can be off, and where photos are missing.

    Args:
        estimated: the poses come from these photos; of given ones nothing is known.
    """
    by_file = {file_name(photo): photo.name for photo in ingest.used}
    names = {i: by_file[model.image(i).name] for i in model.reg_image_ids()}
    network = inspect_network(model, names)
    uncertainty = rotation_uncertainty(model) if estimated else None
    missing = [entry["name"] for entry in report["unregistered"]] if estimated else []
    lost = lost_groups(missing, report["other_models"])
    return {
        "network": network.as_json(),
        "rotation_uncertainty": None if uncertainty is None else uncertainty.as_json(names),
        "advice": recapture_advice(network, ingest, lost, attempt.table, attempt.image_ids),
    }


def _placed(
    model: pycolmap.Reconstruction,
    given: GivenCameras | None,
    ingest: IngestRecord,
    ingest_dir: Path,
    config: SfmConfig,
    seed: int,
    progress: Progress,
) -> dict[str, Any]:
    """Lay the model into its world frame, unless it is the user's; the frame for `sfm.json`."""
    if given is not None:
        source = f"the given cameras ({Path(given.source).name})"
        return {**WorldFrame(given.unit, source, up=given.up).as_json(), "remarks": []}
    frame, remarks = find_frame(model, ingest, ingest_dir, config.scale, seed, progress)
    apply_frame(model, frame)
    return {**frame.as_json(), "remarks": remarks}


def _best_attempt(
    ingest: IngestRecord,
    ingest_dir: Path,
    work: Path,
    config: SfmConfig,
    seed: int,
    progress: Progress,
    given: GivenCameras | None,
) -> _Attempt:
    best: _Attempt | None = None
    refusal = InputError("no photo could be used")
    for masked in _modes(ingest, config):
        try:
            attempt = _attempt(masked, ingest, ingest_dir, work, config, seed, progress, given)
        except InputError as error:
            refusal = error
            continue
        if best is None or attempt.registered > best.registered:
            best = attempt
        if best.registered >= ENOUGH_SHARE * len(ingest.used):
            break
    if best is None:
        raise refusal
    return best


def _modes(ingest: IngestRecord, config: SfmConfig) -> list[bool]:
    """Whether to keep to the masks: what to try, in this order."""
    if config.use_masks is False or not any(photo.mask is not None for photo in ingest.used):
        return [False]
    return [True, False] if config.use_masks == "auto" else [True]


def _attempt(
    masked: bool,
    ingest: IngestRecord,
    ingest_dir: Path,
    work: Path,
    config: SfmConfig,
    seed: int,
    progress: Progress,
    given: GivenCameras | None,
) -> _Attempt:
    photos = ingest.used
    names = [file_name(photo) for photo in photos]
    folder = work / ("masked" if masked else "whole")
    folder.mkdir(parents=True, exist_ok=True)
    working = folder / "working.db"
    image_ids = create_database(
        working, photos, config.share_cameras, given.by_file if given else None
    )
    features = extract_features(working, ingest_dir, photos, image_ids, masked, config, progress)
    _require_features(features)
    pairs = choose_pairs(working, photos, [image_ids[name] for name in names], config, seed)
    match_pairs(working, names, pairs, folder, config, seed, progress)
    published = folder / "database.db"
    published.unlink(missing_ok=True)
    publish_database(working, published)
    table = read_two_views(published)
    _require_overlap(table, len(photos))
    images = ingest_dir / "images"
    chosen = _Chosen(Mapping([], relaxed=False), published, table)
    back = Similarity.identity()
    if given is None:
        chosen = _mapped(working, images, folder, chosen, len(photos), config, seed, progress)
    else:
        check_convention(given, image_ids, table)
        model, back = triangulate_given(working, images, folder, given, image_ids, config)
        chosen = replace(chosen, mapping=Mapping([model], relaxed=False))
    return _Attempt(masked, image_ids, features, len(pairs), chosen, back)


def _mapped(
    working: Path,
    images: Path,
    folder: Path,
    matched: _Chosen,
    photo_count: int,
    config: SfmConfig,
    seed: int,
    progress: Progress,
) -> _Chosen:
    """Map; where pairs contradict the model look for look-alikes, where it leaves doubt ask others.

    Args:
        matched: database and table of all pairs.
    """
    table = matched.table
    mapping = map_incrementally(working, images, folder, photo_count, config, seed, progress)
    _require_model(mapping, table, photo_count)
    first = replace(matched, mapping=mapping)
    consistency = check_consistency(mapping.models[0], table)
    if is_contradicted(consistency, config):
        if config.on_contradiction != "solve":
            return first
        progress.note("pairs contradict the cameras: looking for look-alikes")
        resolved = resolve_lookalikes(
            working, images, folder, table, mapping.models[0], config, seed, progress
        )
        if resolved is None:
            return first
        return _Chosen(resolved.mapping, resolved.database, resolved.table, resolved.report)
    if config.second_opinion and is_doubtful(mapping, consistency, photo_count):
        best, report = most_confirmed(
            mapping, table, working, images, folder, photo_count, config, seed, progress
        )
        return replace(first, mapping=best, opinions=report)
    return first


def _calibrated(
    model: pycolmap.Reconstruction,
    given: GivenCameras | None,
    config: SfmConfig,
    progress: Progress,
) -> tuple[pycolmap.Reconstruction, Calibration]:
    if given is None:
        return calibrate(model, config, progress)
    kept = {
        "none": "poses and lenses as given",
        "poses": "lenses as given, poses refined",
        "all": "poses, focal lengths and distortion refined from the given ones",
    }
    return model, calibration_as_given(model, kept[config.refine_given])


def _given_report(given: GivenCameras, attempt: _Attempt, config: SfmConfig) -> dict[str, Any]:
    return {
        "source": given.source,
        "unit": given.unit,
        "refined": config.refine_given,
        "without_camera": given.missing,
        "given_from_refined": attempt.laid_back.matrix.tolist(),
        "scale_mat": None if given.scale_mat is None else given.scale_mat.tolist(),
    }


def choose_pairs(
    database: Path, photos: list[PhotoRecord], image_ids: list[int], config: SfmConfig, seed: int
) -> list[Pair]:
    """Pairs of positions in `photos` to match: all, or beyond the limit those that promise most."""
    if len(photos) <= config.exhaustive_limit:
        return exhaustive_pairs(len(photos))
    positions = positions_m([photo.gps for photo in photos])
    return sparse_pairs(database, image_ids, config.neighbours, seed, positions)


def _require_features(features: dict[str, int]) -> None:
    useful = [name for name, count in features.items() if count >= FEW_FEATURES]
    if len(useful) < 3:
        raise InputError(
            f"only {len(useful)} of {len(features)} photos show enough texture:"
            f" expected {FEW_FEATURES} features or more in at least 3",
            hint="take sharp, well-lit photos; put a textured, uneven pattern (a newspaper, a"
            " cloth) under and around a plain object; check that masks are white on the object",
        )


def _require_overlap(table: TwoViewTable, photo_count: int) -> None:
    if len(table.pairs) >= 2:
        return
    raise InputError(
        f"the {photo_count} photos do not overlap: {len(table.pairs)} of"
        f" {photo_count * (photo_count - 1) // 2} pairs share verified matches",
        hint="all photos must show the same object; neighbours should share two thirds of what"
        " they show (a step of 10-20° around the object)",
    )


def _require_model(mapping: Mapping, table: TwoViewTable, photo_count: int) -> None:
    if mapping.models:
        return
    raise InputError(
        f"no cameras could be recovered from {photo_count} photos, although {len(table.pairs)}"
        " pairs share matches",
        hint="typical causes: the camera turned on the spot instead of moving, the object moved,"
        " too large steps between photos, or blur; take 20 or more photos walking around it",
    )
