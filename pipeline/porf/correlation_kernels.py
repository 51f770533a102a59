"""CPU kernel of the windows' correlation: warp, windows and score in one pass, compiled by numba.

In torch every step of it is a pass over arrays that no cache holds. `correlation` has the torch
version, which serves every other device; tests hold the two against each other.
"""

import numpy as np

from pipeline.porf.compiled import inlined, part

UNKNOWN = -1.0
FLAT = 1e-4  # variance of a small window without texture: a hundredth of the range of grey
WIDE_FLAT = 1e-5  # of a wide one, over which noise averages out
WIDER = 3  # times as wide are the windows that step in for those without texture
LEAST_DEPTH = 1e-6


@inlined
def _moments(image, other):  # type: ignore[no-untyped-def]
    """What windows sum up of a pixel: itself, its square, its product with the other's."""
    value = np.float64(image)
    return value, value * value, value * np.float64(other)


@part
def _add_row(sums, sign, image, other, row, margin):  # type: ignore[no-untyped-def]
    """Add a row, times a sign, to sums (3, w + 2·margin) of columns; outside, the last row."""
    row = min(max(row, 0), image.shape[0] - 1)
    for j in range(image.shape[1]):
        first, square, product = _moments(image[row, j], other[row, j])
        sums[0, margin + j] += sign * first
        sums[1, margin + j] += sign * square
        sums[2, margin + j] += sign * product


@part
def _continue_border(sums, margin):  # type: ignore[no-untyped-def]
    """The first and last column continued into the margins."""
    last = sums.shape[1] - margin - 1
    for k in range(sums.shape[0]):
        for j in range(margin):
            sums[k, j] = sums[k, margin]
            sums[k, last + 1 + j] = sums[k, last]


@part
def _columns(image, other, reach, margin):  # type: ignore[no-untyped-def]
    """Sums (3, w + 2·margin) over the rows -reach to reach."""
    sums = np.zeros((3, image.shape[1] + 2 * margin))
    for row in range(-reach, reach + 1):
        _add_row(sums, 1.0, image, other, row, margin)
    _continue_border(sums, margin)
    return sums


@part
def _next_row(sums, image, other, reach, row, margin):  # type: ignore[no-untyped-def]
    """From the rows around `row` to those around the next one."""
    _add_row(sums, 1.0, image, other, row + reach + 1, margin)
    _add_row(sums, -1.0, image, other, row - reach, margin)
    _continue_border(sums, margin)


@part
def statistics(image, reach, result):  # type: ignore[no-untyped-def]
    """Fill result (2, h, w) with mean and variance of windows of 2·reach + 1 pixels."""
    sums = _columns(image, image, reach, reach)
    scale = 1.0 / (2 * reach + 1) ** 2
    for i in range(image.shape[0]):
        first = sums[0, : 2 * reach].sum()
        square = sums[1, : 2 * reach].sum()
        for j in range(image.shape[1]):
            first += sums[0, j + 2 * reach]
            square += sums[1, j + 2 * reach]
            mean = first * scale
            result[0, i, j] = mean
            result[1, i, j] = square * scale - mean * mean
            first -= sums[0, j]
            square -= sums[1, j]
        _next_row(sums, image, image, reach, i, reach)


@inlined
def _pixel(grey, x, y):  # type: ignore[no-untyped-def]
    """Bilinear, the border continued."""
    height, width = grey.shape
    x = min(max(x, np.float32(0)), np.float32(width - 1))
    y = min(max(y, np.float32(0)), np.float32(height - 1))
    j, i = min(int(x), width - 2), min(int(y), height - 2)
    u, v = x - np.float32(j), y - np.float32(i)
    above = grey[i, j] + u * (grey[i, j + 1] - grey[i, j])
    below = grey[i + 1, j] + u * (grey[i + 1, j + 1] - grey[i + 1, j])
    return above + v * (below - above)


@part
def _warp(grey, rays, centre, inverse, margin, warped, seen):  # type: ignore[no-untyped-def]
    """A neighbour through the reference at inverse depths; where it lies well within its frame."""
    height, width = grey.shape
    down, across = int(inverse.shape[0] > 1), int(inverse.shape[1] > 1)
    for i in range(warped.shape[0]):
        for j in range(warped.shape[1]):
            near = inverse[i * down, j * across]
            z = rays[2, i, j] + centre[2] * near
            over = np.float32(1) / max(z, np.float32(LEAST_DEPTH))
            x = (rays[0, i, j] + centre[0] * near) * over
            y = (rays[1, i, j] + centre[1] * near) * over
            inside_x = margin - 0.5 < x < width - margin - 0.5
            inside_y = margin - 0.5 < y < height - margin - 0.5
            seen[i, j] = z > LEAST_DEPTH and inside_x and inside_y
            warped[i, j] = _pixel(grey, x, y)


@inlined
def _score(first, square, product, scale, ref_mean, ref_variance, flat):  # type: ignore[no-untyped-def]
    """Zero-mean normalised correlation of two windows; unknown where one of them is flat."""
    mean = first * scale
    variance = square * scale - mean * mean
    if variance <= flat or ref_variance <= flat:
        return np.float32(UNKNOWN)
    score = (product * scale - mean * ref_mean) / np.sqrt(variance * ref_variance)
    return np.float32(min(max(score, -1.0), 1.0))


@part
def _scores(reference, small, wide, reach, warped, seen, scores):  # type: ignore[no-untyped-def]
    """Fill scores (h, w) of one warped neighbour.

    Args:
        small, wide: statistics of the reference's windows, see `statistics`.
    """
    far = (WIDER * (2 * reach + 1)) // 2
    near_sums = _columns(warped, reference, reach, far)
    far_sums = _columns(warped, reference, far, far)
    near_scale, far_scale = 1.0 / (2 * reach + 1) ** 2, 1.0 / (2 * far + 1) ** 2
    left, right = far - reach, far + reach
    for i in range(warped.shape[0]):
        a, b, c = near_sums[:, left:right].sum(axis=1)
        d, e, f = far_sums[:, : 2 * far].sum(axis=1)
        for j in range(warped.shape[1]):
            a += near_sums[0, j + right]
            b += near_sums[1, j + right]
            c += near_sums[2, j + right]
            d += far_sums[0, j + 2 * far]
            e += far_sums[1, j + 2 * far]
            f += far_sums[2, j + 2 * far]
            score = np.float32(UNKNOWN)
            if seen[i, j]:
                score = _score(a, b, c, near_scale, small[0, i, j], small[1, i, j], FLAT)
                if score <= UNKNOWN:
                    score = _score(d, e, f, far_scale, wide[0, i, j], wide[1, i, j], WIDE_FLAT)
            scores[i, j] = score
            a -= near_sums[0, j + left]
            b -= near_sums[1, j + left]
            c -= near_sums[2, j + left]
            d -= far_sums[0, j]
            e -= far_sums[1, j]
            f -= far_sums[2, j]
        _next_row(near_sums, warped, reference, reach, i, far)
        _next_row(far_sums, warped, reference, far, i, far)


@part
def correlate(reference, small, wide, others, rays, centres, inverse, reach, best):  # type: ignore[no-untyped-def]
    """Fill best (h, w) with the mean of the best two scores among the neighbours, at one depth.

    Args:
        reference: (h, w) grey around 0. others: (N, H, W) likewise.
        small, wide: statistics of the reference's windows, see `statistics`.
        rays: (N, 3, h, w) the reference's rays as homogeneous pixels of the others.
        centres: (N, 3) the reference's centre likewise.
        inverse: (1 or h, 1 or w) inverse depths.
        reach: of the small windows to each side, pixels.
    """
    shape = reference.shape
    warped, scores = np.empty(shape, np.float32), np.empty(shape, np.float32)
    seen = np.empty(shape, np.bool_)
    second = np.full(shape, np.float32(UNKNOWN))
    best[:] = UNKNOWN
    for n in range(others.shape[0]):
        _warp(others[n], rays[n], centres[n], inverse, reach, warped, seen)
        _scores(reference, small, wide, reach, warped, seen, scores)
        for i in range(shape[0]):
            for j in range(shape[1]):
                second[i, j] = max(second[i, j], min(best[i, j], scores[i, j]))
                best[i, j] = max(best[i, j], scores[i, j])
    if others.shape[0] > 1:
        for i in range(shape[0]):
            for j in range(shape[1]):
                best[i, j] = np.float32(0.5) * (best[i, j] + second[i, j])
