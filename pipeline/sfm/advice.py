"""Where to take more photos: between which two, by name."""

from pipeline.imaging.records import IngestRecord
from pipeline.sfm.features import file_name
from pipeline.sfm.network import Network, best_partner
from pipeline.sfm.twoview import TwoViewTable

MOST = 6
"""Sentences; more would not be read."""


def recapture_advice(
    network: Network,
    ingest: IngestRecord,
    lost_groups: list[list[str]],
    table: TwoViewTable,
    image_ids: dict[str, int],
) -> list[str]:
    """One sentence for each place where photos are missing, the worst first.

    Args:
        lost_groups: names of photos outside the model, those that belong together in one list.
        image_ids: by file name.
    """
    texts = [_lost(group, ingest, lost_groups, table, image_ids) for group in lost_groups]
    for link in network.weak_links:
        others = f" and {len(link.group) - 1} more hang" if len(link.group) > 1 else " hangs"
        texts.append(
            f"take photos between {link.first} and {link.second}: {link.first}{others} on the"
            f" rest by {link.points} common points"
        )
    for gap in network.gaps:
        texts.append(
            f"take photos between {gap.first} and {gap.second}: they are {gap.angle_deg:.0f}° apart"
            f" and nothing lies between them"
        )
    if len(texts) > MOST:
        texts = [*texts[: MOST - 1], f"and {len(texts) - MOST + 1} more such places"]
    return texts


def lost_groups(missing: list[str], other_models: list[list[str]]) -> list[list[str]]:
    """Photos outside the model: the disjoint models, then the others one by one."""
    grouped = [[name for name in group if name in missing] for group in other_models]
    taken = {name for group in grouped for name in group}
    return [*(g for g in grouped if g), *([name] for name in missing if name not in taken)]


def _lost(
    group: list[str],
    ingest: IngestRecord,
    lost: list[list[str]],
    table: TwoViewTable,
    image_ids: dict[str, int],
) -> str:
    """Between the group and what it matches best in the model, or else its neighbour by name."""
    photo_of = {image_ids[file_name(photo)]: photo.name for photo in ingest.used}
    outside = {name for names in lost for name in names}
    ids = {i for i, name in photo_of.items() if name in group}
    inside = {i for i, name in photo_of.items() if name not in outside}
    first, second = best_partner(table, ids, inside)
    if first:
        pair, why = (photo_of[first], photo_of[second]), "they overlap, but too weakly"
    else:
        pair, why = _neighbours(group, outside, ingest), "no matches join them"
    members = f" (with {len(group) - 1} more)" if len(group) > 1 else ""
    return f"take photos between {pair[0]}{members} and {pair[1]}: {why}"


def _neighbours(group: list[str], outside: set[str], ingest: IngestRecord) -> tuple[str, str]:
    """The photo of the group and the registered one that follow each other most closely."""
    order = [photo.name for photo in ingest.used]
    inside = [name for name in order if name not in outside]
    return min(
        ((a, b) for a in group for b in inside),
        key=lambda pair: (abs(order.index(pair[0]) - order.index(pair[1])), pair),
    )
