"""A plain second implementation of the reference step, as textbooks write it.

Written for comparison, not for speed: softplus and autograd of the library, the network run twice,
normals by differentiating with `create_graph`, one pair of views after the other.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.porf.neus_renderer import NeusRenderer, SampledRays


def contract(x: Tensor) -> Tensor:
    norm = x.norm(dim=-1, keepdim=True)
    return torch.where(norm < 1, x, (2 - 1 / norm) * x / norm)


def encode(x: Tensor, frequencies: int) -> Tensor:
    parts = []
    for k in range(frequencies):
        parts += [torch.sin(2**k * x), torch.cos(2**k * x)]
    return torch.cat(parts, dim=-1)


def linear(layer: torch.nn.Module, x: Tensor) -> Tensor:
    v = layer.weight_v
    weight = layer.weight_g * v / v.pow(2).sum(1, keepdim=True).sqrt()
    return F.linear(x, weight, layer.bias)


def sdf_network(field: torch.nn.Module, x: Tensor) -> Tensor:
    """(N, 3) -> (N, 1 + features)."""
    y = contract(x)
    inputs = torch.cat([y, encode(y, field.frequencies)], dim=-1)
    layers = list(field.children())
    hidden = inputs
    for i, layer in enumerate(layers):
        if i == field.skip_layer:
            hidden = torch.cat([hidden, inputs], dim=-1) / math.sqrt(2)
        hidden = linear(layer, hidden)
        if i + 1 < len(layers):
            hidden = F.softplus(hidden, beta=100)
    return hidden


def normals(field: torch.nn.Module, x: Tensor) -> Tensor:
    """Second run of the network, differentiated with a graph."""
    sdf = sdf_network(field, x)[:, :1]
    return torch.autograd.grad(sdf, x, torch.ones_like(sdf), create_graph=True)[0]


def color_network(field: torch.nn.Module, inputs: Tensor) -> Tensor:
    layers = list(field.children())
    for layer in layers[:-1]:
        inputs = F.relu(linear(layer, inputs))
    return torch.sigmoid(linear(layers[-1], inputs))


def photometric_loss(
    renderer: NeusRenderer, rays: SampledRays, target: Tensor, cos_anneal: float
) -> Tensor:
    """Colour + 0.1 eikonal + 0.001 distortion of sampled rays."""
    o, d = rays.origins, rays.directions
    middle = -(o * d).sum(1, keepdim=True) / (d * d).sum(1, keepdim=True)
    near, far = middle - 1, middle + 1
    counts = renderer.counts
    z = torch.cat([rays.surface_depths, far / rays.fractions + 1 / counts.coarse], dim=1)
    z = z.sort(dim=1).values
    length = torch.cat([z[:, 1:] - z[:, :-1], torch.full_like(far, 2 / counts.coarse)], dim=1)
    t = z + length / 2
    points = o[:, None] + d[:, None] * t[..., None]
    x = points.reshape(-1, 3)
    if not x.requires_grad:
        x = x.requires_grad_()
    view = d[:, None].expand_as(points).reshape(-1, 3)

    output = sdf_network(renderer.sdf_field, x)
    gradient = normals(renderer.sdf_field, x)
    sdf, features = output[:, 0].reshape(t.shape), output[:, 1:]
    inv_s = torch.exp(10 * renderer.variance.variance)
    cosine = (view * gradient).sum(1).reshape(t.shape)
    change = -(F.relu(0.5 - cosine / 2) * (1 - cos_anneal) + F.relu(-cosine) * cos_anneal)
    entering = torch.sigmoid((sdf - change * length / 2) * inv_s)
    leaving = torch.sigmoid((sdf + change * length / 2) * inv_s)
    alpha = ((entering - leaving + 1e-5) / (entering + 1e-5)).clip(0, 1)
    weights, clear = [], torch.ones_like(alpha[:, 0])
    for section in range(alpha.shape[1]):
        weights.append(alpha[:, section] * clear)
        clear = clear * (1 - alpha[:, section] + 1e-7)
    w = torch.stack(weights, dim=1)
    encoded = encode(view, renderer.color_field.frequencies)
    rgb = color_network(renderer.color_field, torch.cat([x, encoded, gradient, features], dim=1))
    color = (w[..., None] * rgb.reshape(points.shape)).sum(1)

    close = (points.norm(dim=-1) < 2).reshape(-1)
    eikonal = ((gradient[close].norm(dim=1) - 1) ** 2).sum() / (close.sum() + 1e-5)
    distortion = pairwise_distortion(w, t, near, far).mean()
    return (color - target).abs().sum(1).mean() + 0.1 * eikonal + 0.001 * distortion


def pairwise_distortion(w: Tensor, t: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Mip-NeRF 360's distortion (B,) by its definition: every pair of sections."""
    inside = ((t - near) / (far - near) / 2).clamp(0, 0.5)
    s = torch.where(t < far, inside, (1 - 0.5 / t).clamp(0.5, 1))
    interval = s[:, 1:] - s[:, :-1]
    interval = torch.cat([interval, interval[:, -1:]], dim=1)
    m = s + interval / 2
    between = (w[:, :, None] * w[:, None] * (m[:, :, None] - m[:, None]).abs()).sum((1, 2))
    return between + (interval * w**2).sum(1) / 3


def epipolar_loss(
    pairs: list[tuple[int, int, Tensor]], c2w: Tensor, K: Tensor, inlier_px: float
) -> Tensor:
    """One pair (ref, src, matches (m, 4)) after the other; divided by 20."""
    total = c2w.new_zeros(())
    for ref, src, matches in pairs:
        errors = pair_errors(matches, c2w[ref], K[ref], c2w[src], K[src])
        inliers = errors[errors < inlier_px]
        if len(inliers):
            rate = len(inliers) / len(errors)
            total = total + rate**2 * F.huber_loss(inliers, torch.zeros_like(inliers))
    return total / 20


def pair_errors(matches: Tensor, c2w1: Tensor, K1: Tensor, c2w2: Tensor, K2: Tensor) -> Tensor:
    """Distances (m,) to the epipolar lines that are drawn through two projected points each."""
    relative = torch.linalg.inv(c2w2) @ c2w1
    x1, x2 = matches[:, :2], matches[:, 2:]

    def to_lines(pixels: Tensor, of_K: Tensor, onto_K: Tensor, transform: Tensor) -> Tensor:
        homogeneous = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=1)
        ray = homogeneous @ torch.linalg.inv(of_K).T
        epipole = onto_K @ transform[:3, 3]
        point = (ray @ transform[:3, :3].T + transform[:3, 3]) @ onto_K.T
        return torch.linalg.cross(epipole.expand_as(point), point)

    def distance(pixels: Tensor, lines: Tensor) -> Tensor:
        value = (pixels * lines[:, :2]).sum(1) + lines[:, 2]
        return value / lines[:, :2].norm(dim=1)

    in_second = distance(x2, to_lines(x1, K1, K2, relative))
    in_first = distance(x1, to_lines(x2, K2, K1, torch.linalg.inv(relative)))
    return (in_second**2 + in_first**2 + 1e-8).sqrt()
