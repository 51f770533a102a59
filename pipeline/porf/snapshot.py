"""The state of a training that is not finished, written out like a finished one."""

from pathlib import Path
from typing import cast

import torch
from torch import nn

from pipeline.errors import InputError
from pipeline.formats.case import Case
from pipeline.porf.artifacts import TrainResult, write_artifacts
from pipeline.porf.checkpoint import CheckpointFile, training_identity
from pipeline.porf.config import TrainConfig
from pipeline.porf.lens import Lens
from pipeline.porf.models import build_field, build_poses
from pipeline.porf.outcome import exported_cameras
from pipeline.porf.second_stage import second_stage_options


def write_snapshot(case: Case, config: TrainConfig, work: Path, out: Path, seed: int) -> int:
    """Write the newest checkpoint's cameras and field into `out`, as `train` does at its end.

    No gate has judged these cameras; a training that runs meanwhile is not disturbed.

    Args:
        work: folder of the checkpoint.
        out: folder to fill.

    Returns:
        The step that the checkpoint was written at.

    Raises:
        InputError: no checkpoint there, or one of another case, other options or another seed.
    """
    device = torch.device("cpu")
    checkpoint = CheckpointFile(work, training_identity(case, config, seed))
    state, reason = checkpoint.load(device)
    if state is None:
        raise InputError(
            reason or f"no checkpoint in {work} yet",
            hint="training writes one every train.checkpoint_every steps, and when it is stopped",
        )
    joint = state["joint"]
    if state["second_stage"]:
        config = second_stage_options(config)
    _, start_c2w, lens = next(c for c in state["candidates"] if c[0] == state["start"])
    start_K = Lens(*lens).applied(torch.from_numpy(case.cameras.K))
    field = build_field(config, None, device)
    cast(nn.Module, field).load_state_dict(joint["field"])
    with torch.no_grad():
        field.begin_step(config.steps, config.steps)
        c2w = joint["fixed_c2w"]
        if c2w is None:  # only in the first stage
            poses = build_poses(config.pose, start_c2w.float(), None)
            poses.load_state_dict(joint["poses"])
            c2w = poses()
    cameras = exported_cameras(case.cameras, c2w, start_K)
    step = int(state["history"][-1][0]) if state["second_stage"] else int(joint["step"])
    result = TrainResult(cameras, "joint", [], state["history"], {"steps": step})
    write_artifacts(out, config, field, result, c2w, case)
    return step
