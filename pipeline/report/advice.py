"""What a user could do to get a better result, from what the stages measured."""

from pipeline.report.data import ReportData
from pipeline.report.words import percent

UNSEEN_WARN = 0.15


def advice(data: ReportData) -> list[str]:
    """One sentence each; empty where nothing stands out."""
    rules = (_unregistered, _unseen)
    return [text for rule in rules if (text := rule(data))]


def _unregistered(data: ReportData) -> str | None:
    lost = [photo.name for photo in data.photos if photo.index is None and photo.path]
    if not lost or not data.registered:
        return None
    named = ", ".join(lost[:4]) + ("…" if len(lost) > 4 else "")
    return (
        f"Not registered: {named}. More photos taken between these and the rest would connect "
        "them, each sharing at least half of its picture with the next."
    )


def _unseen(data: ReportData) -> str | None:
    removed = {row["step"]: row for row in data.mesh_facts.get("removed", [])}
    share = removed.get("unseen", {}).get("area_fraction", 0.0)
    if share < UNSEEN_WARN:
        return None
    return (
        f"{percent(share)} of the trained surface is seen by fewer than two photos and was cut "
        "away: photograph the object from those sides too (often from above, or from low down)."
    )
