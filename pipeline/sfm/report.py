"""`sfm.json`: what was found, what was not and why, and how far it can be trusted."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pycolmap

from pipeline.errors import InputError
from pipeline.imaging.records import IngestRecord
from pipeline.sfm.adjustment import squared_residuals_px
from pipeline.sfm.calibration import Calibration
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.consistency import Consistency
from pipeline.sfm.features import file_name
from pipeline.sfm.mapping import Mapping
from pipeline.sfm.network import LOOSE_POINTS
from pipeline.sfm.twoview import TwoViewTable

FEW_FEATURES = 100
CONTRADICTION_WARN = 0.2
MIN_STRONG_PAIRS = 10
"""Fewer say nothing about the cameras as a whole."""
CONFIRMED_SHARE = 0.9
ROTATION_WARN_DEG = 0.5
REPROJECTION_WARN_PX = 1.5


def unregistered(
    ingest: IngestRecord,
    mapping: Mapping,
    features: dict[str, int],
    table: TwoViewTable,
    image_ids: dict[str, int],
    loose: dict[str, int],
    without_camera: Sequence[str] = (),
) -> list[dict[str, str]]:
    """Usable photos outside the chosen model, each with its reason, by name.

    Args:
        loose: most points shared with another photo, of those left out for having so few.
        without_camera: photos for which the user's cameras had none.
    """
    inside = {mapping.models[0].image(i).name for i in mapping.models[0].reg_image_ids()}
    inside_ids = {image_ids[name] for name in inside}
    partners: dict[int, list[int]] = defaultdict(list)
    for pair in table.pairs:
        partners[pair.image1].append(pair.image2)
        partners[pair.image2].append(pair.image1)
    entries = []
    for photo in ingest.used:
        name = file_name(photo)
        if name in inside:
            continue
        group = _other_group(name, mapping)
        to_model = [p for p in partners[image_ids[name]] if p in inside_ids]
        if photo.name in without_camera:
            reason = "no camera was given for it"
        elif name in loose:
            reason = (
                f"found a place, but shares no more than {loose[name]} points with any other photo:"
                f" left out, since fewer than {LOOSE_POINTS} hold no camera"
            )
        elif features[name] < FEW_FEATURES:
            reason = f"only {features[name]} features: no texture, blurred, or masked out"
        elif group is not None:
            reason = f"in a separate group of {group} photos that does not connect to the others"
        elif not partners[image_ids[name]]:
            reason = "no verified matches with any other photo: too little overlap"
        elif not to_model:
            reason = "overlaps only with photos that were not registered either"
        else:
            reason = (
                f"overlaps with {len(to_model)} registered photo{'s' * (len(to_model) > 1)},"
                " but too weakly to find its place"
            )
        entries.append({"name": photo.name, "reason": reason})
    return entries


def _other_group(name: str, mapping: Mapping) -> int | None:
    for model in mapping.models[1:]:
        names = {model.image(i).name for i in model.reg_image_ids()}
        if name in names:
            return len(names)
    return None


def build_report(
    ingest: IngestRecord,
    mapping: Mapping,
    model: pycolmap.Reconstruction,
    calibration: Calibration,
    consistency: Consistency,
    missing: list[dict[str, str]],
    pair_counts: dict[str, int],
    features: dict[str, int],
) -> dict[str, Any]:
    """Everything for `sfm.json` except the verdict."""
    to_photo = {file_name(photo): photo.name for photo in ingest.used}
    squared_px = squared_residuals_px(model)
    errors = np.sqrt(squared_px[np.isfinite(squared_px)])

    def photo_names(other: pycolmap.Reconstruction) -> list[str]:
        return sorted(to_photo[other.image(i).name] for i in other.reg_image_ids())

    return {
        "registered": photo_names(model),
        "unregistered": missing,
        "other_models": [photo_names(other) for other in mapping.models[1:]],
        "relaxed_mapping": mapping.relaxed,
        "features_median": float(np.median(list(features.values()))),
        "pairs": pair_counts,
        "points": model.num_points3D(),
        "observations": len(squared_px),
        "track_length_mean": float(model.compute_mean_track_length()),
        "reprojection_px": {"mean": float(errors.mean()), "median": float(np.median(errors))},
        "cameras": {
            str(i): {
                "model": camera.model_name,
                "width": camera.width,
                "height": camera.height,
                "params": [float(p) for p in camera.params],
            }
            for i, camera in sorted(model.cameras.items())
        },
        "calibration": calibration.as_json(),
        "consistency": {
            "strong_pairs": consistency.strong_pairs,
            "contradicting_share": consistency.share,
            "contradicting": [
                [to_photo[model.image(i).name] for i in pair] for pair in consistency.contradicting
            ],
        },
    }


def is_contradicted(consistency: Consistency, config: SfmConfig) -> bool:
    """Whether too many strong pairs disagree with a model to believe it."""
    return (
        consistency.strong_pairs >= MIN_STRONG_PAIRS
        and consistency.share > config.contradiction_limit
    )


def refuse_contradiction(report: dict[str, Any], config: SfmConfig) -> None:
    """Refuse cameras that too many of their own photos contradict.

    Raises:
        InputError: unless the options say to go on.
    """
    consistency = report["consistency"]
    share = consistency["contradicting_share"]
    if config.on_contradiction == "warn" or share <= config.contradiction_limit:
        return
    if consistency["strong_pairs"] < MIN_STRONG_PAIRS:
        return
    shown = "; ".join(" and ".join(pair) for pair in consistency["contradicting"][:3])
    raise InputError(
        f"the cameras cannot be trusted: {share:.0%} of the {consistency['strong_pairs']} strongly"
        f" matched pairs of photos contradict them (for example {shown}); repeated or symmetric"
        " texture makes photos of different places look alike",
        hint="put something uneven and unmistakable around the object (a newspaper, stones) so"
        " that every side looks different, keep it in the photos, and take more photos with smaller"
        " steps; or bring known cameras (--cameras); sfm.on_contradiction=warn goes on regardless",
    )


def refuse_too_few(report: dict[str, Any], photo_count: int, config: SfmConfig) -> None:
    """Refuse a model that holds only a small part of the photos.

    Raises:
        InputError: with the places where photos are missing.
    """
    registered = len(report["registered"])
    if registered >= config.min_registered * photo_count:
        return
    places = "; ".join(report["advice"][:3])
    raise InputError(
        f"only {registered} of {photo_count} photos found their place:"
        f" expected {config.min_registered:.0%} or more",
        hint=f"{places}{'; ' if places else ''}neighbouring photos should share two thirds of what"
        " they show (steps of 10-20° around the object); put a textured, uneven pattern under and"
        " around a plain object; sfm.min_registered=0 goes on with what there is",
    )


def _unconfirmed(asked: dict[str, Any]) -> list[str]:
    """A sentence where the mappings do not agree on most views of the one that was taken."""
    taken = next(o for o in asked["opinions"] if o["kind"] == asked["taken"])
    if taken["confirmed"] >= CONFIRMED_SHARE * taken["registered"]:
        return []
    return [
        f"{len(asked['opinions'])} mappings agree on only {taken['confirmed']} of"
        f" {taken['registered']} views: the cameras of the others may be wrong; check the camera"
        " plot against reality"
    ]


def _weak_link(link: dict[str, Any]) -> str:
    group = link["group"]
    others = f" and {len(group) - 1} more photos hang" if len(group) > 1 else " hangs"
    return (
        f"weak link: {link['first']}{others} on the rest by {link['points']} points shared"
        f" with {link['second']}; such cameras may be off without anything noticing"
    )


def warnings_of(report: dict[str, Any], photo_count: int) -> list[str]:
    """What a user should look at before trusting the cameras."""
    warnings = list(report["frame"]["remarks"])
    registered = len(report["registered"])
    if registered < photo_count:
        names = [entry["name"] for entry in report["unregistered"]]
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        warnings.append(
            f"{registered} of {photo_count} photos registered; not: {shown}"
            f" ({report['unregistered'][0]['reason']})"
        )
    for group in report["other_models"]:
        if len(group) > 2:
            warnings.append(f"{len(group)} photos form a separate group ({group[0]} … {group[-1]})")
    warnings += [_weak_link(link) for link in report["network"]["weak_links"][:3]]
    if report.get("opinions"):
        warnings += _unconfirmed(report["opinions"])
    elif report["relaxed_mapping"]:
        warnings.append("mapping succeeded only with relaxed thresholds: check the cameras")
    share = report["consistency"]["contradicting_share"]
    if share > CONTRADICTION_WARN:
        warnings.append(
            f"{share:.0%} of the strongly matched pairs contradict the cameras: repeated or"
            " symmetric texture may have misled them; check the camera plot against reality"
        )
    if report.get("lookalikes"):
        found = report["lookalikes"]
        warnings.append(
            f"repeated texture: {found['pairs_set_aside']} pairs of photos only look alike and were"
            f" set aside; the cameras rest on the other {found['pairs_kept']} pairs"
        )
    points = report["calibration"]["principal_points"]
    sigma_deg = max((p["rotation_sigma_deg"] for p in points), default=0.0)
    if sigma_deg > ROTATION_WARN_DEG:
        warnings.append(
            "the matches hardly determine the principal point: all cameras may be rotated"
            f" together by about {sigma_deg:.1f}°; more photos, also from nearer and turned by 90°,"
            " would settle it"
        )
    if report["reprojection_px"]["median"] > REPROJECTION_WARN_PX:
        warnings.append(
            f"reprojection error {report['reprojection_px']['median']:.1f} px: blurred photos, a"
            " moving object, or a lens that the camera models do not cover"
        )
    return warnings
