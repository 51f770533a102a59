"""A training that leaves one worker and goes on at another."""

import os
from pathlib import Path

import pytest

from tests.flows.aftermath import clean, made
from tests.flows.harness import SMALL, WHOLE, Porf, until
from tests.flows.processes import stage_pids
from tests.flows.services import run_id, running_service, states_by_id, working


def niceness(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


@pytest.mark.slow
def test_a_training_cancelled_at_one_worker_goes_on_at_another(
    porf: Porf, photos_and_truth: Path, tmp_path: Path
) -> None:
    photos, out = photos_and_truth / "photos", tmp_path / "out"
    steps = ["--set", "train.steps=200", "--set", "train.checkpoint_every=20"]
    with running_service(porf, tmp_path, {}) as service:
        assert service("deploy").code == 0
        submitted = service("submit", photos, "-o", out, "--config", SMALL, *WHOLE, *steps)
        run = run_id(submitted.text)
        with working(service, tmp_path / "first", "--nice", "7"):
            until(lambda: [*(out / ".porf/work/train").glob("*/checkpoint.pt")], 900)
            (stage,) = stage_pids(out)
            assert niceness(stage) == min(19, niceness(0) + 7)
            assert "Cancel" in service("cancel", run).text
            until(lambda: states_by_id(service)[run] == "CANCELLED", 120)
            until(lambda: not stage_pids(out), 60)
        before = made(out)
        with working(service, tmp_path / "second"):
            retried = service("retry", run, "--wait")
        assert retried.code == 0, retried.text
        said = service("logs", run_id(retried.text)).text
    assert "train starts: continues where it was interrupted" in said
    assert "training continues at step" in said
    assert before.items() <= made(out).items(), "what was made was made again"
    clean(out)
