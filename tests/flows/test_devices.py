"""GPUs are handed out one stage at a time, by locks that the kernel frees."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from flows import devices
from flows.devices import Gpu, gpu_slot, visible_gpus, wants_gpu
from flows.settings import resolve
from stages.registry import STAGES

TWO = [Gpu("0", "GPU-aaa"), Gpu("1", "GPU-bbb")]


def _hold(folder: Path, taken: Path) -> None:
    with gpu_slot(TWO, folder) as gpu:
        assert gpu
        taken.write_text(gpu.name)
        time.sleep(60)


def hold(folder: Path, taken: Path) -> multiprocessing.process.BaseProcess:
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(folder, taken))
    holder.start()
    for _ in range(400):
        if taken.exists() and taken.read_text():
            break
        time.sleep(0.02)
    return holder


def test_each_device_has_one_holder_and_a_killed_one_frees_it(tmp_path: Path) -> None:
    first = hold(tmp_path, tmp_path / "first")
    second = hold(tmp_path, tmp_path / "second")
    try:
        assert {(tmp_path / n).read_text() for n in ("first", "second")} == {"0", "1"}
        waited: list[int] = []

        def kill_first() -> None:
            waited.append(1)
            assert first.pid
            os.kill(first.pid, signal.SIGKILL)

        with gpu_slot(TWO, tmp_path, kill_first, poll_s=0.02) as gpu:
            assert waited == [1]
            assert gpu
            assert gpu.name == (tmp_path / "first").read_text()
    finally:
        for holder in (first, second):
            holder.kill()
            holder.join()


def test_without_gpus_nothing_is_held(tmp_path: Path) -> None:
    with gpu_slot([], tmp_path / "none") as gpu:
        assert gpu is None
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, ["GPU-aaa", "GPU-bbb"]),
        ("1,0", ["1", "0"]),
        ("GPU-bb", ["GPU-bb"]),
        ("0,7,1", ["0"]),  # as CUDA: what follows an unknown name is not seen
        ("", []),
        ("-1", []),
    ],
)
def test_devices_are_those_that_cuda_shows(
    monkeypatch: pytest.MonkeyPatch, chosen: str | None, names: list[str]
) -> None:
    monkeypatch.setattr(devices, "_installed_gpus", lambda: ("GPU-aaa", "GPU-bbb"))
    environment = {} if chosen is None else {"CUDA_VISIBLE_DEVICES": chosen}
    found = visible_gpus(environment)
    assert [gpu.name for gpu in found] == names
    assert {gpu.lock_name for gpu in found} <= {"GPU-aaa", "GPU-bbb"}


def test_only_stages_with_a_device_take_one() -> None:
    settings = resolve().model_dump(mode="json")
    takes = {name for name in STAGES if wants_gpu(STAGES[name], settings[name])}
    assert {"train", "mesh", "evaluate"} <= takes
    assert "sfm" not in takes, "pycolmap from the index computes on the CPU"
    assert wants_gpu(STAGES["sfm"], {"device": "cuda"})
    assert not wants_gpu(STAGES["train"], {"device": "cpu"})
