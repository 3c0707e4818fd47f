"""What all benchmarks share: interleaved timing, the environment record, the result file.

Two contenders are timed in the same process in turn, A B A B ..., so that a machine whose load
changes slows both; the ratio of their medians (and of their minima) is the result. Start a
benchmark with one thread: `OMP_NUM_THREADS=1 python benchmarks/NAME.py`.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
#: Packages whose versions bear on speed or numbers.
PACKAGES = ("torch", "pyscf", "numpy", "scipy", "ase")


@dataclass
class Timing:
    """Processor times of one contender, one per repeat, and what it counted along the way."""

    seconds: list[float] = field(default_factory=list)
    counts: dict[str, float] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def minimum(self) -> float:
        return min(self.seconds)

    def record(self) -> dict[str, Any]:
        return {
            "median_s": round(self.median, 5),
            "min_s": round(self.minimum, 5),
            "repeats": len(self.seconds),
            **self.counts,
        }


def interleave(
    contenders: Mapping[str, Callable[[], Mapping[str, float]]],
    repeats: int,
    warm: bool = True,
) -> dict[str, Timing]:
    """Run every contender once unseen, then all in turn, `repeats` times.

    Args:
        contenders: name -> a function that does the whole work and returns what it counted (SCF
            cycles, say), which must not change from one repeat to the next.
        repeats: timed runs of each.
        warm: whether there is the unseen run; minutes of work do without.

    Returns:
        Name -> processor seconds (time in which the process was suspended by others is not
        counted) and counts.
    """
    timings = {name: Timing(counts=dict(run()) if warm else {}) for name, run in contenders.items()}
    for repeat in range(repeats):
        names = list(contenders)
        # The order alternates: nobody always runs with the caches warmed by the same neighbour.
        for name in names if repeat % 2 == 0 else reversed(names):
            gc.collect()
            start = time.process_time()
            counts = dict(contenders[name]())
            timings[name].seconds.append(time.process_time() - start)
            before = timings[name].counts or counts
            if counts != before:
                raise RuntimeError(f"{name}: counted {counts}, before {before}")
            timings[name].counts = counts
    return timings


def compare(timings: Mapping[str, Timing], reference: str, per: str | None = None) -> dict:
    """Ratios to a reference, total and divided by a count.

    Args:
        timings: from `interleave`.
        reference: name of the contender that is 1.
        per: name of a count by which the times are divided too, for example "cycles".

    Returns:
        Name -> times, counts and ratios.
    """
    base, out = timings[reference], {}
    for name, timing in timings.items():
        out[name] = timing.record() | {
            "ratio_of_medians": round(timing.median / base.median, 4),
            "ratio_of_minima": round(timing.minimum / base.minimum, 4),
        }
        if per is not None:
            scale = base.counts[per] / timing.counts[per]
            out[name][f"ratio_of_medians_per_{per}"] = round(timing.median / base.median * scale, 4)
    return out


def one_thread() -> None:
    """Hold every library to one thread, or refuse.

    Raises:
        SystemExit: OMP_NUM_THREADS is not 1; libraries read it when they are loaded.
    """
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("start this with OMP_NUM_THREADS=1 in the environment")
    import torch
    from pyscf import lib

    torch.set_num_threads(1)
    lib.num_threads(1)


def environment() -> dict[str, Any]:
    """Where and with what a result was measured."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": _git("rev-parse", "--short", "HEAD"),
        "modified": bool(_git("status", "--porcelain", "--untracked-files=no", "ase_neuralxc")),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "cpu": _cpu(),
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
        "load_average": round(os.getloadavg()[0], 2),
    }


def save(name: str, protocol: Any, results: Any) -> Path:
    """Write `results/NAME.json`: protocol (a dataclass), environment and results; print them.

    Returns:
        The path.
    """
    content = {"protocol": asdict(protocol), "environment": environment(), "results": results}
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(content, indent=1) + "\n"
    path.write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return path


def _git(*arguments: str) -> str:
    run = subprocess.run(
        ["git", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    return run.stdout.strip()


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
