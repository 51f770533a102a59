"""A whole batch: what is there already, what failed before, and everything else."""

import fcntl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows.batch.conduct import BatchReporter, Ended, conduct
from flows.batch.entries import BatchRun
from flows.batch.page import write_page
from flows.batch.record import (
    RECORD,
    BatchRecord,
    RunResult,
    fingerprint,
    new_result,
    with_outcome,
)
from flows.finished import finished_results
from pipeline.errors import InputError
from pipeline.store.files import disk_error

LOGS = ".batch"


class Batch:
    """The runs of a batch in one output folder, and what is known of each."""

    def __init__(
        self, source: Path, out: Path, runs: Sequence[BatchRun], keep_others: bool = False
    ) -> None:
        """Start from the record of an earlier command, whose other runs can be kept in it."""
        self.out = out
        self.runs = list(runs)
        self._source = source
        earlier = BatchRecord.load(out)
        self._earlier = {r.name: r for r in earlier.runs} if earlier else {}
        self.results = dict(self._earlier) if keep_others else {}
        self.results.update({run.name: new_result(run) for run in runs})

    def sort_out(self, retry_failed: bool, on_run: Callable[[RunResult], None]) -> list[BatchRun]:
        """Settle what needs no computing; returns the runs that do.

        A run that failed before is not tried again while its options, its files and the code are
        the same, unless `retry_failed`.
        """
        left = []
        for run in self.runs:
            settled = self._settled(run, retry_failed)
            if settled is None:
                left.append(run)
            else:
                self.results[run.name] = settled
                on_run(settled)
        self.save()
        return left

    def compute(self, runs: Sequence[BatchRun], jobs: int, reporter: BatchReporter) -> None:
        """Run what is left."""
        conduct(runs, self.out / LOGS, jobs, reporter, self._take)

    def save(self) -> None:
        """Write `batch.json` and `index.html`."""
        record = BatchRecord(source=str(self._source), runs=list(self.results.values()))
        record.save(self.out)
        write_page(self.out, record)

    def _settled(self, run: BatchRun, retry_failed: bool) -> RunResult | None:
        result = self.results[run.name]
        if run.request is None:
            assert run.refusal
            said = {"message": run.refusal.message, "hint": run.refusal.hint}
            return result.model_copy(update={"status": "failed", **said})
        if finished_results(run.request) is not None:
            return with_outcome(result.model_copy(update={"status": "cached"}), run.request.out)
        before = self._earlier.get(run.name)
        if before and before.status == "failed" and not retry_failed:
            return before if before.fingerprint == _fingerprint(run) else None
        return None

    def _take(self, run: BatchRun, ended: Ended) -> None:
        assert run.request
        result = self.results[run.name].model_copy(
            update={
                "status": ended.status,
                "message": ended.message,
                "hint": ended.hint,
                "stage": ended.stage,
                "fingerprint": _fingerprint(run),
            }
        )
        done = ended.status == "done"
        self.results[run.name] = with_outcome(result, run.request.out) if done else result
        self.save()


def _fingerprint(run: BatchRun) -> str:
    try:
        return fingerprint(run)
    except InputError as error:
        return error.message  # the same file is missing: the same failure


@contextmanager
def batch_folder(out: Path, source: Path) -> Iterator[None]:
    """Make the output folder and hold it, so that two batches never write one record.

    Raises:
        InputError: it is the source, a file, holds files of somebody else, cannot be written, or
            another batch works there.
    """
    if out == source:
        raise InputError("results would mix with the cases", hint="choose another folder with -o")
    if out.is_file():
        raise InputError(f"{out} is a file: expected a folder for the results")
    ours = (out / RECORD).is_file() or (out / LOGS).is_dir()
    if out.is_dir() and not ours and any(out.iterdir()):
        raise InputError(
            f"{out} holds files that are not of a batch",
            hint="choose an empty or new folder with -o",
        )
    try:
        (out / LOGS).mkdir(parents=True, exist_ok=True)
        with (out / LOGS / "lock").open("a") as lock:
            _hold(lock.fileno(), out)
            yield
    except OSError as error:
        raise disk_error(error, out) from error


def _hold(descriptor: int, out: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InputError(
            f"another `porf batch` works in {out}", hint="wait for it, or choose another -o"
        ) from error
