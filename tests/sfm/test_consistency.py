"""A model that its own verified matches contradict is told apart from one that they support."""

from pathlib import Path

import pycolmap
import pytest

from pipeline.errors import InputError
from pipeline.sfm.colmap import quiet, registered_ids
from pipeline.sfm.config import SfmConfig
from pipeline.sfm.consistency import check_consistency
from pipeline.sfm.report import refuse_contradiction
from pipeline.sfm.twoview import TwoViewTable, read_two_views

VIEWS = 9


@pytest.fixture
def synthetic(tmp_path: Path) -> tuple[pycolmap.Reconstruction, TwoViewTable]:
    quiet()
    pycolmap.set_random_seed(2)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, VIEWS
    options.num_points3D = 80
    with pycolmap.Database.open(str(tmp_path / "d.db")) as database:
        model = pycolmap.synthesize_dataset(options, database)
    return model, read_two_views(tmp_path / "d.db")


def test_a_right_model_is_supported(
    synthetic: tuple[pycolmap.Reconstruction, TwoViewTable],
) -> None:
    consistency = check_consistency(*synthetic)
    assert consistency.strong_pairs == VIEWS * (VIEWS - 1) // 2
    assert consistency.contradicting == []


def test_misplaced_views_are_contradicted(
    synthetic: tuple[pycolmap.Reconstruction, TwoViewTable],
) -> None:
    model, table = synthetic
    ids = registered_ids(model)
    first, second = (model.image(i).cam_from_world() for i in ids[:2])
    model.image(ids[0]).frame.set_cam_from_world(model.image(ids[0]).camera_id, second)
    model.image(ids[1]).frame.set_cam_from_world(model.image(ids[1]).camera_id, first)
    consistency = check_consistency(model, table)
    involved = [pair for pair in consistency.contradicting if set(pair) & set(ids[:2])]
    assert len(consistency.contradicting) == len(involved) >= VIEWS
    assert consistency.share > 0.2


def test_reading_leaves_the_database_as_it_is(
    synthetic: tuple[pycolmap.Reconstruction, TwoViewTable], tmp_path: Path
) -> None:
    path = tmp_path / "d.db"
    before = path.read_bytes()
    read_two_views(path)
    assert path.read_bytes() == before
    assert {p.name for p in tmp_path.iterdir()} == {"d.db"}


def test_too_many_contradictions_are_refused_unless_told_otherwise() -> None:
    def report(share: float, strong: int) -> dict:
        pairs = [["a.jpg", "b.jpg"]] * round(share * strong)
        return {
            "consistency": {
                "strong_pairs": strong,
                "contradicting_share": share,
                "contradicting": pairs,
            }
        }

    refuse_contradiction(report(0.2, 100), SfmConfig())
    refuse_contradiction(report(0.5, 4), SfmConfig())  # too few pairs to say
    with pytest.raises(InputError, match="34% of the 100 strongly matched pairs") as caught:
        refuse_contradiction(report(0.34, 100), SfmConfig())
    assert "sfm.on_contradiction=warn" in (caught.value.hint or "")
    with pytest.raises(InputError):
        refuse_contradiction(report(0.34, 100), SfmConfig(on_contradiction="refuse"))
    refuse_contradiction(report(0.34, 100), SfmConfig(on_contradiction="warn"))
    refuse_contradiction(report(0.34, 100), SfmConfig(contradiction_limit=0.5))
