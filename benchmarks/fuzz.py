"""Feed damaged and hostile files to every reader of foreign files.

    python benchmarks/fuzz.py [--inputs 100000] [--reader NAME …] [--seed 0]

Every reader must return, or refuse with an error of ours, within `LIMIT_S` seconds of processor
time (`WAIT_S` in all: a busy machine is no finding) and `MEMORY_GB` of memory beyond what it had.
Each runs in a process of its own, so that a crash of native code is seen. What breaks a reader is
kept beneath `fuzz_found/`.
"""

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.fuzz_readers import Reader, readers
from pipeline.errors import PorfError
from pipeline.imaging.decode import UnusablePhotoError

LIMIT_S = 20
WAIT_S = 300
MEMORY_GB = 3.0
_KEPT = Path("fuzz_found").absolute()
_SEED = "seed"
"""File beneath the work folder with the seed of the input that is being read."""
_ALLOWED = (PorfError, UnusablePhotoError)
_TIMERS = (
    (signal.SIGPROF, signal.ITIMER_PROF, LIMIT_S),
    (signal.SIGALRM, signal.ITIMER_REAL, WAIT_S),
)


def try_once(reader: Reader, seed: int, folder: Path) -> str | None:
    """Read one damaged input; what is wrong with how it ended, or None."""
    rng = random.Random(seed)
    path = folder / reader.file
    path.write_bytes(reader.mutate(rng.choice(reader.seeds), rng))
    for number, timer, seconds in _TIMERS:
        signal.signal(number, _too_slow)
        signal.setitimer(timer, seconds)
    try:
        reader.read(path)
    except _ALLOWED:
        return None
    except BaseException:
        return traceback.format_exc()
    finally:
        for _, timer, _ in _TIMERS:
            signal.setitimer(timer, 0)
    return None


def _too_slow(*_: object) -> None:
    raise TimeoutError(f"no end after {LIMIT_S} s of processor time, or {WAIT_S} s in all")


def bound_memory() -> None:
    """Let allocations beyond `MEMORY_GB` fail in this process."""
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    limit = in_use + int(MEMORY_GB * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def run_reader(name: str, first: int, count: int, folder: Path) -> int:
    """Try seeds `first` … in this process; returns how many broke it, and keeps their inputs."""
    broken: dict[str, int] = {}
    reader = readers(folder)[name]
    bound_memory()
    for seed in range(first, first + count):
        (folder / _SEED).write_text(str(seed))
        problem = try_once(reader, seed, folder)
        if problem:
            last = problem.strip().splitlines()[-1][:160]
            broken[last] = broken.get(last, 0) + 1
            if broken[last] == 1:
                keep_input(name, folder, problem)
    for last, times in broken.items():
        print(f"  {times} × {last}")
    return sum(broken.values())


def keep_input(name: str, folder: Path, problem: str) -> None:
    """Keep the input that is being read, and what is wrong with it."""
    _KEPT.mkdir(exist_ok=True)
    kept = _KEPT / f"{name}-{(folder / _SEED).read_text()}"
    with tempfile.TemporaryDirectory() as text:
        file = readers(Path(text))[name].file
    kept.write_bytes((folder / file).read_bytes())
    kept.with_name(f"{kept.name}.txt").write_text(problem)


def run_apart(name: str, first: int, count: int) -> int:
    """`run_reader` in a process of its own; returns its exit code, negative for a signal."""
    with tempfile.TemporaryDirectory() as text:
        command = [sys.executable, __file__, "--here", text, "--reader", name]
        command += ["--inputs", str(count), "--seed", str(first)]
        code = subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode
        if code < 0:
            keep_input(name, Path(text), f"ended by {signal.Signals(-code).name}")
    return code


def main() -> int:
    """Run all readers; exit code 0 only if none broke."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--reader", action="append", help="only these; may be repeated")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--here", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.here:
        (name,) = arguments.reader
        return int(run_reader(name, arguments.seed, arguments.inputs, arguments.here) > 0)
    with tempfile.TemporaryDirectory() as text:
        names = arguments.reader or list(readers(Path(text)))
    each, broken = -(-arguments.inputs // len(names)), []
    began = time.monotonic()
    for name in names:
        started = time.monotonic()
        code = run_apart(name, arguments.seed, each)
        how = "ok" if code == 0 else f"BROKEN (exit {code})"
        broken += [name] if code else []
        print(f"{name:18} {each} inputs  {time.monotonic() - started:6.1f} s  {how}", flush=True)
    minutes = (time.monotonic() - began) / 60
    told = f"broken: {', '.join(broken)}" if broken else "none broken"
    print(f"{each * len(names)} inputs, {len(names)} readers, {minutes:.0f} min, {told}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
