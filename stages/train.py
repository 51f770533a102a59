"""Stage `train`: cameras and surface together, from a case in the PoRF data convention."""

import torch._dynamo  # noqa: F401  (torch's optimizers load it when the first one is made)

from pipeline.formats.case import load_case
from pipeline.porf.trainer import train
from pipeline.verdict import Verdict
from stages.base import StageContext


def run(ctx: StageContext) -> Verdict:
    """Train the scene's cameras and surface; checkpoints live in `ctx.work`."""
    case = load_case(ctx.inputs["scene"], ctx.inputs["matches"])
    result = train(case, ctx.config, ctx.out, ctx.work, ctx.seed, ctx.progress)
    return result.verdict
