"""Advice names the two photos between which more are needed."""

import numpy as np

from pipeline.imaging.records import IngestRecord, PhotoRecord
from pipeline.sfm.advice import MOST, lost_groups, recapture_advice
from pipeline.sfm.network import Gap, Network, WeakLink
from pipeline.sfm.twoview import TwoViewTable, VerifiedPair

NAMES = [f"IMG_{n:02d}.jpg" for n in range(1, 21)]
INGEST = IngestRecord(
    photos=[PhotoRecord(name=name, file=f"images/{name}", used=True) for name in NAMES]
)
IDS = {name: n for n, name in enumerate(NAMES, start=1)}
NOTHING = Network([], [], None)


def _table(*pairs: tuple[int, int, int]) -> TwoViewTable:
    return TwoViewTable(
        {}, [VerifiedPair(a, b, np.zeros((count, 2), dtype=np.int64)) for a, b, count in pairs]
    )


def _advice(network: Network, lost: list[list[str]], table: TwoViewTable) -> list[str]:
    return recapture_advice(network, INGEST, lost, table, IDS)


def test_a_sound_set_needs_nothing() -> None:
    assert _advice(NOTHING, [], _table((1, 2, 200))) == []


def test_a_lost_photo_is_joined_to_its_best_match() -> None:
    table = _table((13, 2, 18), (5, 13, 25), (12, 14, 300))
    (text,) = _advice(NOTHING, [["IMG_13.jpg"]], table)
    assert text.startswith("take photos between IMG_13.jpg and IMG_05.jpg")


def test_without_matches_it_is_joined_to_its_neighbour() -> None:
    (text,) = _advice(NOTHING, [["IMG_12.jpg", "IMG_11.jpg"]], _table())
    assert text.startswith("take photos between IMG_11.jpg (with 1 more) and IMG_10.jpg")


def test_photos_that_are_lost_too_are_no_help() -> None:
    lost = [["IMG_12.jpg"], ["IMG_13.jpg"]]
    texts = _advice(NOTHING, lost, _table((12, 13, 90)))
    assert "IMG_12.jpg and IMG_11.jpg" in texts[0]
    assert "IMG_13.jpg and IMG_14.jpg" in texts[1]


def test_weak_links_and_gaps_name_both_ends() -> None:
    network = Network(
        [WeakLink("IMG_03.jpg", "IMG_09.jpg", ["IMG_03.jpg", "IMG_04.jpg"], 12)],
        [Gap("IMG_12.jpg", "IMG_13.jpg", 47.3)],
        12.0,
    )
    weak, gap = _advice(network, [], _table())
    assert "between IMG_03.jpg and IMG_09.jpg: IMG_03.jpg and 1 more hang on" in weak
    assert "between IMG_12.jpg and IMG_13.jpg: they are 47° apart" in gap


def test_only_so_many_sentences() -> None:
    gaps = [Gap(NAMES[n], NAMES[n + 1], 50.0) for n in range(MOST + 3)]
    texts = _advice(Network([], gaps, 12.0), [], _table())
    assert len(texts) == MOST
    assert texts[-1] == "and 4 more such places"


def test_groups_first_then_single_photos() -> None:
    missing = ["a", "b", "c", "d"]
    assert lost_groups(missing, [["b", "x", "c"], []]) == [["b", "c"], ["a"], ["d"]]
