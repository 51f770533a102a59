"""The first surface of the fast field: fitted to matches and stereo depths before colours count."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.porf.anchors import Anchors, anchor_loss, triangulate_anchors
from pipeline.porf.closer_look import look_closer, with_closer
from pipeline.porf.compiled import serves
from pipeline.porf.config import LookConfig, StereoConfig, TrainConfig
from pipeline.porf.depth_maps import DepthMaps, confirmed
from pipeline.porf.epipolar import MatchTable
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.grid import fill_slabs
from pipeline.porf.interruption import Interruption
from pipeline.porf.observations import Observations
from pipeline.porf.schedule import warmup_cosine
from pipeline.porf.stereo import sweep
from pipeline.porf.stereo_views import StereoViews, stereo_views
from pipeline.progress import Progress

_MAX_ANCHORS = 400_000
_LEAST_EMPTY_LINES = 20_000  # enough to carve the masks' hull where nothing else is known
_BATCH = 2048
_BAKED_PER_CACHED = 2
"""Rays look for the surface in a grid of distances this much finer than the renderer's cache."""
_EIKONAL_WEIGHT = 0.1
_REPORT_EVERY = 25
_BEYOND = 100.0  # units: farther than any camera stands from the sphere's far side


def give_first_shape(
    field: GridModel,
    config: TrainConfig,
    observations: Observations,
    table: MatchTable,
    match_K: Tensor,
    c2w: Tensor,
    generator_for: Callable[[str], torch.Generator],
    progress: Progress,
    interruption: Interruption,
) -> None:
    """Place anchors in a field and fit its surface to them, as far as the options ask for it.

    Args:
        match_K, c2w: see `collect_anchors`.
        generator_for: a generator on the CPU for every purpose.
    """
    options = config.grid
    if options.anchor_steps == 0 and options.anchor_weight == 0:
        return
    drawn = generator_for("anchors")
    anchors = collect_anchors(
        config, observations, table, match_K, c2w, drawn, progress, interruption
    )
    if anchors is None:
        return
    field.anchors = anchors
    fit_to_anchors(field, options.anchor_steps, generator_for("first shape"), progress)


def views_to_look_at(
    observations: Observations, options: LookConfig, c2w: Tensor
) -> list[StereoViews]:
    """The photos at every size that looks use, the smallest first."""
    largest_px = min(options.max_image_side, max(observations.images.shape[1:3]))
    return [
        stereo_views(observations.images, observations.K, c2w, largest_px // 2**level)
        for level in reversed(range(options.levels))
    ]


def look_again(
    field: GridModel,
    config: TrainConfig,
    observations: Observations,
    sizes: list[StereoViews],
    c2w: Tensor,
    generator: torch.Generator,
    progress: Progress,
    interruption: Interruption,
) -> None:
    """Renew the field's anchors by depths measured closely around its surface.

    Args:
        sizes: the photos, see `views_to_look_at`.
        c2w: (V, 4, 4) the cameras by now, normalised frame.
        generator: on the CPU; chooses where there are too many.
    """
    if field.anchors is None:
        return
    size = _BAKED_PER_CACHED * config.grid.cache_resolution
    distances = torch.empty(1, 1, size, size, size, device=c2w.device)
    fill_slabs(distances, field.sdf)
    anchors = field.anchors
    for halvings, small in zip(reversed(range(len(sizes))), sizes, strict=True):
        options = config.look.model_copy(update={"reach": config.look.reach * 2**halvings})
        views = replace(small, c2w=c2w)
        maps, trusted = look_closer(
            distances, views, config.stereo, options, progress, interruption
        )
        covered = _mask_cover(observations, views)
        if covered is not None:
            on_object = [covered[i] > 0.5 for i in maps.view]
            trusted = [a & b for a, b in zip(trusted, on_object, strict=True)]
        anchors = with_closer(anchors, views, maps, trusted, options.consistency)
    field.anchors = anchors.limited(_MAX_ANCHORS, generator)


def collect_anchors(
    config: TrainConfig,
    observations: Observations,
    table: MatchTable,
    match_K: Tensor,
    c2w: Tensor,
    generator: torch.Generator,
    progress: Progress,
    interruption: Interruption,
) -> Anchors | None:
    """Lines of sight from matches, stereo and masks; None where there are none.

    Args:
        match_K: (V, 3, 3) intrinsics of the matches' pixels.
        c2w: (V, 4, 4) cameras, normalised frame.
        generator: on the CPU; chooses where there are too many.
    """
    found = []
    if table.num_matches:
        on_object = _matches_on_object(table, match_K, observations)
        found.append(triangulate_anchors(table, c2w, match_K, on_object))
    if config.stereo.views:
        views = stereo_views(observations.images, observations.K, c2w, config.stereo.max_image_side)
        maps = sweep(views, config.stereo, progress, interruption)
        covered = _mask_cover(observations, views)
        found.append(_stereo_anchors(views, maps, config.stereo, covered))
        if covered is not None:
            # no more than surface points, where there are many: a step draws few of them all
            surface = max(sum(len(anchors) for anchors in found), _LEAST_EMPTY_LINES)
            found.append(_empty_lines(views, covered).limited(surface, generator))
    lines = [anchors.lines for anchors in found if len(anchors)]
    if not lines:
        return None
    return Anchors.of_lines(torch.cat(lines)).limited(_MAX_ANCHORS, generator)


def _matches_on_object(
    table: MatchTable, match_K: Tensor, observations: Observations
) -> Tensor | None:
    """(M,) bool: both pixels lie in the masks; None where there are no masks."""
    if observations.masks is None:
        return None
    height, width = observations.masks.shape[1:]
    scale = observations.K[0, 0, 0] / match_K[0, 0, 0]

    def covered(view: Tensor, xy_px: Tensor) -> Tensor:
        x, y = ((xy_px + 0.5) * scale - 0.5).round().long().unbind(1)
        x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
        return observations.masks[view, y, x]  # type: ignore[index]

    ref, src = table.pair_ref[table.pair_of_match], table.pair_src[table.pair_of_match]
    return covered(ref, table.points_px[:, :2]) & covered(src, table.points_px[:, 2:])


def _mask_cover(observations: Observations, views: StereoViews) -> Tensor | None:
    """(V, H, W) share of each of stereo's pixels that is on the object; None without masks."""
    if observations.masks is None:
        return None
    size = views.grey.shape[2:]
    reduced = [
        F.interpolate(mask[None, None].float(), size, mode="area")[0] for mask in observations.masks
    ]
    return torch.cat(reduced)


def _stereo_anchors(
    views: StereoViews, maps: DepthMaps, options: StereoConfig, covered: Tensor | None
) -> Anchors:
    kept = confirmed(views, maps, options)
    found = [Anchors(views.K.new_zeros(0, 3), views.K.new_zeros(0, 3), 0).lines]
    for i, seen, good in zip(maps.view, maps.points(views), kept, strict=True):
        on_object = good if covered is None else good & (covered[i] > 0.5)
        points = seen[on_object]
        found.append(Anchors(views.c2w[i, :3, 3].expand_as(points), points, i).lines)
    return Anchors.of_lines(torch.cat(found))


def _empty_lines(views: StereoViews, covered: Tensor) -> Anchors:
    """Lines of pixels well beside the masks: nothing of the object lies on them."""
    near_object = F.max_pool2d(covered[:, None], 5, 1, 2)[:, 0]
    found = []
    for i in range(len(views.c2w)):
        directions = views.directions(i)[near_object[i] == 0]
        centres = views.c2w[i, :3, 3].expand_as(directions)
        found.append(Anchors(centres, centres + _BEYOND * directions, i).lines)
    return Anchors.of_lines(torch.cat(found))


def fit_to_anchors(
    field: GridModel, steps: int, seeded: torch.Generator, progress: Progress
) -> None:
    """Fit the field's surface to its anchors, if it has any, without colours.

    Args:
        seeded: its initial seed is that of all draws.
    """
    surface, anchors = field.surface, field.anchors
    if anchors is None:
        return
    generator = torch.Generator(anchors.lines.device).manual_seed(seeded.initial_seed())
    optimiser = torch.optim.Adam(field.parameter_groups(), fused=True)
    rates = [float(group["lr"]) for group in optimiser.param_groups]
    for step in range(steps):
        factor = warmup_cosine(step, steps, 20, 0.1)
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        draw = anchors.draw(_BATCH, generator)
        even = 2 * torch.rand(_BATCH, 3, generator=generator, device=draw.free.device) - 1
        sdf, gradient, _ = surface(torch.cat([draw.surface, even]))
        others = surface.sdf(torch.cat([draw.free, draw.behind]))
        eikonal = ((gradient.norm(dim=1) - 1) ** 2).mean()
        loss = anchor_loss(draw, sdf[:_BATCH], *others.chunk(2)) + _EIKONAL_WEIGHT * eikonal
        optimiser.zero_grad(set_to_none=not serves(draw.surface))
        loss.backward()
        optimiser.step()
        if (step + 1) % _REPORT_EVERY == 0 or step + 1 == steps:
            progress.advance("first shape", step + 1, steps)
