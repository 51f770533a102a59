"""Rows for the results of the named protocols."""

import numpy as np

from pipeline.metrics.dtu import CAP_MM, DENSITY_MM, DtuErrors
from pipeline.metrics.mobilebrick import THRESHOLDS_M, BrickErrors
from pipeline.metrics.table import Metric
from pipeline.metrics.tanks import TanksErrors


def dtu_metrics(errors: DtuErrors, scan: int, culled: str) -> list[Metric]:
    """Rows of the DTU protocol, mm.

    Args:
        culled: what was cut from the mesh before, in words.
    """
    how = (
        f"DTU scan {scan}: thinned to {DENSITY_MM:g} mm, distances of {CAP_MM:g} mm or more left "
        f"out; {culled}"
    )
    masked, unmasked = how + "; within ObsMask", how + "; not limited by ObsMask"
    above = how + "; reference above the table's plane"
    return [
        Metric("dtu_overall", errors.overall, "mm",
               "mean of accuracy and completeness; smaller is better", masked),
        Metric("dtu_accuracy", float(errors.accuracy.mean()), "mm",
               "mean distance of the mesh from the scan", masked),
        Metric("dtu_completeness", float(errors.completeness.mean()), "mm",
               "mean distance of the scan from the mesh", above),
        Metric("dtu_overall_unmasked", errors.overall_unmasked, "mm",
               "the same where the mesh counts also outside the observed space", unmasked),
        Metric("dtu_accuracy_unmasked", float(errors.accuracy_unmasked.mean()), "mm",
               "mean distance of the whole mesh in bounds from the scan", unmasked),
        *[Metric(f"dtu_{name}_points", count, "", f"points {name.replace('_', ' ')}", how)
          for name, count in errors.counts.items()],
    ]  # fmt: skip


def mobilebrick_metrics(errors: BrickErrors, samples: int) -> list[Metric]:
    """Rows of the MobileBrick protocol."""
    moved = "moved by the inverse ICP" if errors.applied else "ICP not applied (fitness ≤ 0.99)"
    how = f"MobileBrick: {moved}; cropped by visibility; {samples} Poisson-disk samples a side"
    rows = [
        Metric("chamfer_sum", 1000 * errors.chamfer_m, "mm",
               "sum (not mean) of the mean distances both ways; smaller is better", how),
    ]  # fmt: skip
    for threshold_m in THRESHOLDS_M:
        label = f"{1000 * threshold_m:g}mm"
        accuracy, recall, f1 = errors.rates(threshold_m)
        near = f"nearer than {1000 * threshold_m:g} mm"
        rows += [
            Metric(f"f1_{label}", 100 * f1, "%", "harmonic mean of accuracy and recall", how),
            Metric(f"accuracy_{label}", 100 * accuracy, "%", f"share of the mesh {near}", how),
            Metric(f"recall_{label}", 100 * recall, "%", f"share of the truth {near}", how),
        ]
    meaning = "share of the true vertices that ICP found a partner for"
    rows.append(Metric("icp_fitness", 100 * errors.registration.fitness, "%", meaning, how))
    rmse_mm = 1000 * errors.registration.inlier_rmse
    rows.append(Metric("icp_rmse", rmse_mm, "mm", "distance of these that is left", how))
    return rows


def tanks_metrics(errors: TanksErrors, unit: str) -> list[Metric]:
    """Rows of the Tanks and Temples protocol."""
    refined = "three refinements by ICP" if errors.registration else "no refinement"
    how = f"Tanks and Temples: τ = {errors.tau:g} {unit}; {refined}; cropped; voxels of τ/2"
    return [
        Metric("tanks_f_score", 100 * errors.fscore, "%",
               "harmonic mean of precision and recall; larger is better", how),
        Metric("tanks_precision", 100 * errors.precision, "%",
               "share of the mesh's points nearer than τ to the truth", how),
        Metric("tanks_recall", 100 * errors.recall, "%",
               "share of the true points nearer than τ to the mesh", how),
        *[Metric(f"tanks_{name}", count, "", f"points: {name.replace('_', ' ')}", how)
          for name, count in errors.counts.items()],
    ]  # fmt: skip


def image_pair_metrics(
    psnr_db: list[float], ssim: list[float], lpips: list[float] | None, masked: bool
) -> list[Metric]:
    """Rows for renders against photos, from the values of each pair."""
    how = f"{len(psnr_db)} pairs of one name" + ("; PSNR within the masks" if masked else "")
    rows = [
        Metric("psnr_mean", float(np.mean(psnr_db)), "dB", "mean PSNR; larger is better", how),
        Metric("ssim_mean", float(np.mean(ssim)), "", "mean structural likeness, at most 1", how),
    ]
    if lpips is not None:
        meaning = "mean perceptual distance (LPIPS, AlexNet); smaller is better"
        rows.append(Metric("lpips_mean", float(np.mean(lpips)), "", meaning, how))
    return rows
