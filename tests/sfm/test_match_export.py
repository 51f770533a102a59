"""Matches by view index from both sides, whatever COLMAP's ids are."""

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from pipeline.errors import InputError
from pipeline.formats.matches import load_matches, save_matches
from pipeline.geometry.epipolar import fundamental_matrix, symmetric_epipolar_distance_px
from pipeline.imaging.records import PhotoRecord
from pipeline.sfm.colmap import c2w_of, quiet
from pipeline.sfm.config import MatchesConfig
from pipeline.sfm.match_export import both_directions, collect_matches
from pipeline.sfm.undistortion import plan_layout
from pipeline.sfm.views import RegisteredView

NOISE_PX = 0.2


class _Synthetic:
    """A synthetic model whose third and sixth photo are not registered."""

    def __init__(self, folder: Path) -> None:
        quiet()
        pycolmap.set_random_seed(1)
        self.database = folder / "database.db"
        options = pycolmap.SyntheticDatasetOptions()
        options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 8
        options.num_points3D = 200
        options.camera_model_id = pycolmap.CameraModelId.SIMPLE_RADIAL
        options.camera_width, options.camera_height = 1000, 800
        options.camera_params = [1100.0, 515.0, 390.0, -0.05]
        noise = pycolmap.SyntheticNoiseOptions()
        noise.point2D_stddev = NOISE_PX
        with pycolmap.Database.open(str(self.database)) as database:
            self.model = pycolmap.synthesize_dataset(options, database)
            pycolmap.synthesize_noise(noise, self.model, database)
        by_name = sorted(self.model.reg_image_ids(), key=lambda i: self.model.image(i).name)
        for position in (2, 5):
            self.model.deregister_frame(self.model.image(by_name[position]).frame_id)
        kept = [i for i in by_name if i in set(self.model.reg_image_ids())]
        # names against the order of ids: an index taken from an id would be wrong everywhere
        self.views = [
            RegisteredView(
                index,
                PhotoRecord(name=f"{index}.jpg", used=True),
                image_id,
                self.model.image(image_id).camera,
                c2w_of(self.model.image(image_id)),
            )
            for index, image_id in enumerate(reversed(kept))
        ]
        c2w = np.stack([view.c2w for view in self.views])
        self.layout = plan_layout([view.camera for view in self.views], np.zeros(3), c2w)

    def collect(self, seed: int = 0, **options: object):
        return collect_matches(
            self.database,
            self.model,
            self.views,
            self.layout.K,
            (self.layout.width, self.layout.height),
            MatchesConfig.model_validate(options),
            seed,
        )


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> _Synthetic:
    return _Synthetic(tmp_path_factory.mktemp("synthetic"))


def test_matches_obey_the_epipolar_geometry_of_their_views(synthetic: _Synthetic) -> None:
    pairs = synthetic.collect()
    assert len(pairs) == 6 * 5 // 2
    for pair in pairs:
        F = fundamental_matrix(
            synthetic.layout.K[pair.i],
            synthetic.views[pair.i].c2w,
            synthetic.layout.K[pair.j],
            synthetic.views[pair.j].c2w,
        )
        distance = symmetric_epipolar_distance_px(F, pair.xyxy_px)
        assert np.median(distance) < 4 * NOISE_PX
        assert np.quantile(distance, 0.99) < 12 * NOISE_PX


def test_both_directions_carry_the_same_matches_and_marks(
    synthetic: _Synthetic, tmp_path: Path
) -> None:
    views = both_directions(synthetic.collect(), 6)
    save_matches(tmp_path / "m", views)
    loaded = load_matches(tmp_path / "m", 6)
    for i, view in enumerate(loaded):
        assert view.sources == [j for j in range(6) if j != i]
        for j, matches, heldout in zip(view.sources, view.matches_px, view.heldout, strict=True):
            back = loaded[j].sources.index(i)
            np.testing.assert_array_equal(matches, loaded[j].matches_px[back][:, [2, 3, 0, 1]])
            np.testing.assert_array_equal(heldout, loaded[j].heldout[back])


def test_matches_lie_inside_the_views(synthetic: _Synthetic) -> None:
    for pair in synthetic.collect():
        assert (pair.xyxy_px >= -0.5).all()
        assert (pair.xyxy_px[:, [0, 2]] < synthetic.layout.width - 0.5).all()
        assert (pair.xyxy_px[:, [1, 3]] < synthetic.layout.height - 0.5).all()


def test_about_a_tenth_is_held_out_by_whole_points(synthetic: _Synthetic) -> None:
    pairs = synthetic.collect()
    share = sum(p.heldout.sum() for p in pairs) / sum(len(p.heldout) for p in pairs)
    assert 0.05 < share < 0.16
    # a scene point seen in view 0 has one fate in all pairs of view 0
    fates: dict[tuple[float, float], set[bool]] = {}
    for pair in pairs:
        if pair.i == 0:
            for row, held in zip(pair.xyxy_px, pair.heldout, strict=True):
                fates.setdefault((float(row[0]), float(row[1])), set()).add(bool(held))
    assert len(fates) > 50
    assert all(len(fate) == 1 for fate in fates.values())


def test_the_split_is_seeded(synthetic: _Synthetic) -> None:
    first, second, other = synthetic.collect(), synthetic.collect(), synthetic.collect(seed=5)
    same = [np.array_equal(a.heldout, b.heldout) for a, b in zip(first, second, strict=True)]
    differs = [np.array_equal(a.heldout, b.heldout) for a, b in zip(first, other, strict=True)]
    assert all(same)
    assert not all(differs)


def test_nothing_is_held_out_on_request(synthetic: _Synthetic) -> None:
    assert not any(pair.heldout.any() for pair in synthetic.collect(heldout_fraction=0.0))


def test_too_high_a_demand_is_refused(synthetic: _Synthetic) -> None:
    with pytest.raises(InputError, match="no pair of views shares 100000"):
        synthetic.collect(min_matches=100000)


def test_a_view_without_matches_has_an_empty_file(synthetic: _Synthetic, tmp_path: Path) -> None:
    pairs = [pair for pair in synthetic.collect() if 4 not in (pair.i, pair.j)]
    save_matches(tmp_path / "m", both_directions(pairs, 6))
    assert load_matches(tmp_path / "m", 6)[4].sources == []
