"""The table of matches and the loss on it."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import InputError
from pipeline.formats.matches import ViewMatches
from pipeline.geometry.epipolar import fundamental_matrix, symmetric_epipolar_distance_px
from pipeline.porf.epipolar import (
    MatchTable,
    epipolar_loss,
    invert_intrinsics,
    symmetric_epipolar_errors_px,
)
from pipeline.porf.poses import LearnPose
from pipeline.porf.so3 import so3_exp

VIEWS = 5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def cameras() -> tuple[Tensor, Tensor]:
    """K (V, 3, 3) and c2w (V, 4, 4), float64: a ring around the origin, looking at it."""
    angle = torch.arange(VIEWS, dtype=torch.float64) * 0.6
    zeros = torch.zeros_like(angle)
    c2w = torch.eye(4, dtype=torch.float64).repeat(VIEWS, 1, 1)
    c2w[:, :3, :3] = so3_exp(torch.stack([zeros, -angle, zeros], dim=1))
    c2w[:, :3, 3] = -3.0 * c2w[:, :3, 2]
    K = torch.tensor([[400.0, 0, 310], [0, 410, 245], [0, 0, 1]], dtype=torch.float64)
    return K.repeat(VIEWS, 1, 1), c2w


def exact_matches(counts: dict[tuple[int, int], int], noise_px: float = 0.0) -> list[ViewMatches]:
    """Projections of random points for given (ref, src) pairs; both directions only if asked."""
    K, c2w = cameras()
    generator = seeded(11)
    views = [ViewMatches([], [], []) for _ in range(VIEWS)]
    for (ref, src), count in counts.items():
        points = torch.rand(count, 3, generator=generator, dtype=torch.float64) - 0.5
        columns = []
        for view in (ref, src):
            camera = (points - c2w[view, :3, 3]) @ c2w[view, :3, :3]
            pixels = camera @ K[view].T
            columns.append(pixels[:, :2] / pixels[:, 2:])
        matches = torch.cat(columns, dim=1)
        matches += noise_px * torch.randn(matches.shape, generator=generator, dtype=torch.float64)
        views[ref].sources.append(src)
        views[ref].matches_px.append(matches.numpy().astype(np.float32))
        views[ref].heldout.append(np.arange(count) % 4 == 0)
    return views


def mirrored(views: list[ViewMatches]) -> list[ViewMatches]:
    """Every pair from both sides, as the format stores it."""
    both = [ViewMatches(list(v.sources), list(v.matches_px), list(v.heldout)) for v in views]
    for ref, view in enumerate(views):
        for src, pixels, marks in zip(view.sources, view.matches_px, view.heldout, strict=True):
            both[src].sources.append(ref)
            both[src].matches_px.append(pixels[:, [2, 3, 0, 1]])
            both[src].heldout.append(marks)
    return both


COUNTS = {(0, 1): 40, (0, 2): 8, (1, 3): 25, (2, 4): 12, (3, 4): 30}


def test_exact_matches_have_no_error_and_errors_are_in_pixels() -> None:
    K, c2w = cameras()
    table = MatchTable.from_matches(exact_matches(COUNTS), heldout=None)
    assert float(symmetric_epipolar_errors_px(table, c2w, K).max()) < 2e-4  # 1e-4 is the epsilon
    # Moving a point off its line by d gives d in this image, and about as much in the other.
    moved = exact_matches(COUNTS, noise_px=2.0)
    errors = symmetric_epipolar_errors_px(MatchTable.from_matches(moved), c2w, K)
    assert 1.0 < float(errors.median()) < 4.0


def test_errors_equal_the_geometry_packages() -> None:
    K, c2w = cameras()
    views = exact_matches(COUNTS, noise_px=3.0)
    table = MatchTable.from_matches(views, heldout=None)
    ours = symmetric_epipolar_errors_px(table, c2w, K).numpy()
    expected = []
    for ref, src in COUNTS:
        F = fundamental_matrix(K[ref].numpy(), c2w[ref].numpy(), K[src].numpy(), c2w[src].numpy())
        pixels = views[ref].matches_px[views[ref].sources.index(src)]
        expected.append(symmetric_epipolar_distance_px(F, pixels))
    np.testing.assert_allclose(ours, np.concatenate(expected), rtol=1e-5, atol=1e-4)


def test_the_distance_ignores_the_worlds_frame_and_scale() -> None:
    K, c2w = cameras()
    table = MatchTable.from_matches(exact_matches(COUNTS, noise_px=3.0))
    before = symmetric_epipolar_errors_px(table, c2w, K)
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[:3, :3] = so3_exp(torch.tensor([0.3, -1.0, 0.7], dtype=torch.float64))
    similarity[:3, 3] = torch.tensor([1.0, -2.0, 5.0])
    moved = similarity @ c2w
    moved[:, :3, 3] *= 7.0
    torch.testing.assert_close(
        symmetric_epipolar_errors_px(table, moved, K), before, rtol=1e-8, atol=1e-9
    )


def test_order_and_direction_of_pairs_do_not_matter() -> None:
    K, c2w = cameras()
    views = exact_matches(COUNTS, noise_px=5.0)
    plain = epipolar_loss(MatchTable.from_matches(views), c2w, K).loss
    both = MatchTable.from_matches(mirrored(views))
    once = MatchTable.from_matches(mirrored(views), both_directions=False)
    assert (both.num_pairs, once.num_pairs) == (10, 5)
    torch.testing.assert_close(epipolar_loss(once, c2w, K).loss, plain)
    torch.testing.assert_close(epipolar_loss(both, c2w, K).loss, 2 * plain)
    shuffled = torch.tensor([7, 0, 3, 9, 1, 2, 8, 4, 6, 5])
    torch.testing.assert_close(epipolar_loss(both, c2w, K, shuffled).loss, 2 * plain)


def test_a_single_direction_is_never_dropped() -> None:
    table = MatchTable.from_matches(exact_matches({(3, 1): 9}), heldout=None, both_directions=False)
    assert (table.num_pairs, table.num_matches) == (1, 9)


def test_a_subset_of_pairs_is_the_loss_of_those_pairs() -> None:
    K, c2w = cameras()
    table = MatchTable.from_matches(exact_matches(COUNTS, noise_px=4.0))
    alone = [epipolar_loss(table, c2w, K, torch.tensor([p])).loss for p in range(5)]
    pair_losses = torch.stack(alone)
    torch.testing.assert_close(epipolar_loss(table, c2w, K).loss, pair_losses.sum())
    some = torch.tensor([4, 1])
    torch.testing.assert_close(epipolar_loss(table, c2w, K, some).loss, pair_losses[some].sum())
    mean = epipolar_loss(table, c2w, K, normaliser=table.num_pairs).loss
    torch.testing.assert_close(mean, 4 * pair_losses.sum())
    sub = table.select(some)
    assert sub.host_counts.tolist() == table.host_counts[some].tolist()
    for position, pair in enumerate(some):
        ours = sub.points_px[sub.pair_of_match == position]
        assert torch.equal(ours, table.points_px[table.pair_of_match == pair])


def test_held_out_rows_are_kept_apart() -> None:
    views = exact_matches(COUNTS)
    kept, held, every = (MatchTable.from_matches(views, heldout=h) for h in (False, True, None))
    total = sum(COUNTS.values())
    assert every.num_matches == total
    assert held.num_matches == sum(-(-count // 4) for count in COUNTS.values())
    assert kept.num_matches + held.num_matches == total
    rows = {tuple(row) for row in held.points_px.tolist()}
    assert rows.isdisjoint({tuple(row) for row in kept.points_px.tolist()})


def test_large_pairs_are_cut_reproducibly() -> None:
    views = exact_matches(COUNTS)

    def cut(seed: int) -> Tensor:
        table = MatchTable.from_matches(
            views, heldout=None, max_matches_per_pair=10, generator=seeded(seed)
        )
        assert table.host_counts.tolist() == [10, 8, 10, 10, 10]
        assert len(torch.unique(table.points_px, dim=0)) == 48
        return table.points_px

    assert torch.equal(cut(1), cut(1))
    assert not torch.equal(cut(1), cut(2))


def test_a_steps_matches_are_drawn_anew() -> None:
    """The original draws at most 5000 of a pair's matches at every step, with repetition."""
    table = MatchTable.from_matches(exact_matches(COUNTS), heldout=None)
    pairs = torch.tensor([4, 1, 0])
    generator = seeded(5)
    first, second = (table.select(pairs, 10, generator) for _ in range(2))
    assert first.host_counts.tolist() == [10, 8, 10]
    assert not torch.equal(first.points_px, second.points_px)
    for position, pair in enumerate(pairs.tolist()):
        own = {tuple(row) for row in table.points_px[table.pair_of_match == pair].tolist()}
        drawn = first.points_px[first.pair_of_match == position]
        assert {tuple(row) for row in drawn.tolist()} <= own
    assert torch.equal(first.points_px[10:18], table.points_px[table.pair_of_match == 1])


def test_sampling_of_pairs() -> None:
    counts = {(0, src): 4 for src in range(1, VIEWS)} | {(1, 2): 4}
    table = MatchTable.from_matches(exact_matches(counts))
    drawn = table.sample_pairs_of_view(0, seeded(1), max_pairs=3)
    assert len(set(drawn.tolist())) == 3
    assert set(table.pair_ref[drawn].tolist()) == {0}
    assert torch.equal(drawn, table.sample_pairs_of_view(0, seeded(1), max_pairs=3))
    assert len(table.sample_pairs_of_view(0, seeded(1))) == 4
    assert len(table.sample_pairs_of_view(4, seeded(1))) == 0
    anywhere = table.sample_pairs(3, seeded(2)).tolist()
    assert len(set(anywhere)) == 3
    assert set(table.sample_pairs(99, seeded(2)).tolist()) == set(range(5))


def test_outliers_and_nothing_at_all_give_zero_with_a_gradient() -> None:
    K, c2w = cameras()
    poses = LearnPose(c2w)
    far_off = exact_matches(COUNTS)
    for view in far_off:
        for pixels in view.matches_px:
            pixels[:, 1] += 300
    nothing = MatchTable.from_matches([ViewMatches([], [], []) for _ in range(VIEWS)])
    some = MatchTable.from_matches(exact_matches(COUNTS))
    no_pairs = torch.zeros(0, dtype=torch.long)
    for result in (
        epipolar_loss(MatchTable.from_matches(far_off), poses(), K, inlier_px=5.0),
        epipolar_loss(nothing, poses(), K),
        epipolar_loss(some, poses(), K, nothing.pairs_of_view(2)),
        epipolar_loss(some, poses(), K, no_pairs),
    ):
        assert float(result.loss.detach()) == 0.0
        assert float(result.inlier_rate) == 0.0
        gradients = torch.autograd.grad(result.loss, [poses.r, poses.t], allow_unused=True)
        assert all(g is None or not g.any() for g in gradients)


def test_cameras_at_one_place_stay_finite() -> None:
    K, c2w = cameras()
    c2w[:, :3, 3] = 1.0
    poses = LearnPose(c2w)
    loss = epipolar_loss(MatchTable.from_matches(exact_matches(COUNTS)), poses(), K).loss
    gradients = torch.autograd.grad(loss, [poses.r, poses.t])
    assert all(torch.isfinite(value).all() for value in (loss, *gradients))


def test_gradients_of_poses_and_intrinsics() -> None:
    K, c2w = cameras()
    table = MatchTable.from_matches(exact_matches({(0, 1): 6, (1, 3): 5}, noise_px=2.0))
    poses = LearnPose(c2w)
    K.requires_grad_()

    def loss(r: Tensor, t: Tensor, intrinsics: Tensor) -> Tensor:
        moved = torch.func.functional_call(poses, {"r": r, "t": t}, ())
        return epipolar_loss(table, moved, intrinsics.triu()).loss

    assert torch.autograd.gradcheck(loss, (poses.r, poses.t, K), atol=1e-5)


def test_minimising_it_mends_rotations() -> None:
    """Poses disturbed by 0.3° come back, through exact matches alone."""
    K, c2w = cameras()
    pairs = {(i, j): 30 for i in range(VIEWS) for j in range(i + 1, VIEWS)}
    table = MatchTable.from_matches(exact_matches(pairs))
    disturbed = c2w.clone()
    noise = 0.005 * torch.randn(VIEWS, 3, generator=seeded(3), dtype=torch.float64)
    disturbed[:, :3, :3] = so3_exp(noise) @ c2w[:, :3, :3]
    poses = LearnPose(disturbed)
    optimiser = torch.optim.Adam(poses.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 300)
    before = float(epipolar_loss(table, poses(), K).loss.detach())
    for _ in range(300):
        optimiser.zero_grad()
        epipolar_loss(table, poses(), K).loss.backward()
        optimiser.step()
        scheduler.step()
    after = float(epipolar_loss(table, poses(), K).loss.detach())
    assert after < 0.02 * before


def test_inverse_of_intrinsics() -> None:
    K, _ = cameras()
    K[:, 0, 1] = 1.7
    torch.testing.assert_close(invert_intrinsics(K), torch.linalg.inv(K), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("source", "value", "said"),
    [(0, 1.0, "another view"), (VIEWS, 1.0, "another view"), (1, np.nan, "not finite")],
)
def test_impossible_matches_are_refused(source: int, value: float, said: str) -> None:
    views = [ViewMatches([], [], []) for _ in range(VIEWS)]
    views[0] = ViewMatches([source], [np.full((3, 4), value)], [np.zeros(3, dtype=bool)])
    with pytest.raises(InputError, match=said):
        MatchTable.from_matches(views)
