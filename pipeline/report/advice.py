"""What a user could do to get a better result, from what the stages measured."""

from pipeline.report.data import ReportData
from pipeline.report.words import percent

UNSEEN_WARN = 0.15
THIN_WARN = 0.15
DISAGREE_WARN = 0.1
FEW_MATCHES = 30
MIN_PHOTOS = 5


def advice(data: ReportData) -> list[str]:
    """One sentence each; empty where nothing stands out."""
    rules = (_unregistered, _weakly_joined, _unseen, _thinly_seen, _matches_disagree)
    return [*_between(data), *(text for rule in rules if (text := rule(data)))]


def _between(data: ReportData) -> list[str]:
    """Where `sfm` found photos missing, by the names of two photos."""
    return [text[:1].upper() + text[1:] + "." for text in data.sfm.get("advice") or []]


def _unregistered(data: ReportData) -> str | None:
    lost = [photo.name for photo in data.photos if photo.index is None and photo.path]
    if not lost or not data.registered or data.sfm.get("advice"):
        return None
    named = ", ".join(lost[:4]) + ("…" if len(lost) > 4 else "")
    return (
        f"Not registered: {named}. More photos taken between these and the rest would connect "
        "them, each sharing at least half of its picture with the next."
    )


def _weakly_joined(data: ReportData) -> str | None:
    """Photos that hang on one other photo only."""
    if data.match_counts is None or len(data.match_counts) < MIN_PHOTOS:
        return None
    partners = (data.match_counts >= FEW_MATCHES).sum(axis=1)
    weak = [data.view_name(int(index)) for index in (partners <= 1).nonzero()[0]]
    if not weak:
        return None
    named = ", ".join(weak[:4]) + ("…" if len(weak) > 4 else "")
    return (
        f"Held by at most one other photo: {named}. Their cameras rest on little; photos from "
        "places between them and the rest would make them firm."
    )


def _thinly_seen(data: ReportData) -> str | None:
    values = {m["name"]: m["value"] for m in data.metrics.get("metrics", [])}
    share = values.get("seen_by_three")
    if share is None or share > 100 * (1 - THIN_WARN):
        return None
    return (
        f"{percent(1 - share / 100)} of the surface is seen by fewer than three photos and can be "
        "off without anything noticing: add photos of these sides."
    )


def _matches_disagree(data: ReportData) -> str | None:
    values = {m["name"]: m["value"] for m in data.metrics.get("metrics", [])}
    inliers = values.get("heldout_epipolar_inliers_refined")
    if inliers is None or inliers > 100 * (1 - DISAGREE_WARN):
        return None
    return (
        f"{percent(1 - inliers / 100)} of the held-out matches contradict the cameras. Repeated "
        "patterns or moving things mislead matching: put something irregular beside the object, "
        "and let nothing move between photos."
    )


def _unseen(data: ReportData) -> str | None:
    share = data.mesh_facts.get("missed_fraction", 0.0)
    if share < UNSEEN_WARN:
        return None
    return (
        f"{percent(share)} of the surface, its underside not counted, was seen by too few photos "
        "and was cut away: photograph the object from those sides too (often from above, or from "
        "low down)."
    )
