"""The second stage: a finer surface, trained anew with the refined cameras held fixed.

Source: the paper trains its final surfaces so (section 4), with another program; here it is the
same field with more levels, and it starts from the depths that the first stage ended with.
"""

import torch

from pipeline.porf.config import TrainConfig
from pipeline.porf.fast_renderer import GridModel
from pipeline.porf.first_shape import fit_to_anchors
from pipeline.porf.joint import JointTraining
from pipeline.porf.rays import FieldModel
from pipeline.progress import Progress


def second_stage_options(config: TrainConfig) -> TrainConfig:
    """The options of the second stage's training."""
    surface = config.surface
    finer = {"resolutions": surface.resolutions, "log2_entries": surface.log2_entries}
    return config.model_copy(
        update={
            "steps": surface.steps,
            "grid": config.grid.model_copy(update=finer),
            "pose": config.pose.model_copy(update={"model": "fixed"}),
        }
    )


def begin_like(
    first: FieldModel, second: JointTraining, generator: torch.Generator, progress: Progress
) -> None:
    """Fit the second stage's fast field to the first one's anchors; others start from a sphere.

    Args:
        generator: its initial seed is that of all draws.
    """
    field = second.field
    if isinstance(first, GridModel) and isinstance(field, GridModel):
        field.anchors = first.anchors
        fit_to_anchors(field, second.config.grid.anchor_steps, generator, progress)
