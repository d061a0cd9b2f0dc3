"""The machine that a plan is made for, and the rates that its seconds are computed with; each of them is printed with the plan.

    Machine.of("8x80")       eight GPUs of 80 GB
    Machine.of(None)         the CPU of this machine

A pass takes as long as the slowest of three: its matrix products, what has to be read from memory, and starting its kernels one
by one from Python.  A CPU does the first two one after the other: it has no other units for the one.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from sleepkit.errors import SleepkitError

__all__ = ["Machine"]

GIGA = 1e9


@dataclass(frozen=True)
class Machine:
    """Where a night runs.

    Attributes:
        name: in words.
        device: "cuda" or "cpu".
        ranks: processes, each with a device of its own.
        memory: bytes of one device.
        flops: of matrix products a second, one device, as they are reached.
        writing_flops: the same of products with few rows, as in decoding.
        bandwidth: bytes a second, as they are reached.
        launch: seconds to start the kernels of one layer.
        context: bytes that the driver and the libraries take of a device's memory.
        slack: share of a device's memory that the allocator cannot use.
        disk: bytes a second that are written.
        assumptions: how the rates were come by, a line each.
    """

    name: str
    device: str
    ranks: int
    memory: float
    flops: float
    writing_flops: float
    bandwidth: float
    launch: float
    context: float
    slack: float
    disk: float
    assumptions: tuple[str, ...]

    @classmethod
    def of(cls, gpus: str | None) -> Machine:
        """Read ``NxGB``, such as ``8x80``; None is this machine's CPU.

        Raises:
            SleepkitError: it is something else.
        """
        return _cpu() if gpus is None else _gpus(gpus)

    def reading(self, flops: float, weights: float, layers: int) -> float:
        """Seconds of a pass that reads many tokens.

        Args:
            flops: of the pass.
            weights: bytes that are read from memory.
            layers: whose kernels are started.
        """
        return max(flops / self.flops, weights / self.bandwidth, layers * self.launch)

    def writing(self, flops: float, read_bytes: float, layers: int) -> float:
        """Seconds of a pass that writes one token in each row; arguments as for `reading`, ``read_bytes`` with the cache."""
        if self.device == "cpu":
            return flops / self.writing_flops + read_bytes / self.bandwidth
        return max(flops / self.writing_flops, read_bytes / self.bandwidth, layers * self.launch)


def _gpus(text: str) -> Machine:
    match = re.fullmatch(r"\s*(\d+)\s*[xX×]\s*(\d+(?:\.\d+)?)\s*(?:GB|gb)?\s*", text)
    if match is None or not int(match[1]) or not float(match[2]):
        raise SleepkitError(f"gpus is {text!r}; give their number and the gigabytes of each, such as 8x80")
    ranks, memory = int(match[1]), float(match[2]) * GIGA
    use, bandwidth, launch = 0.35, 0.6, 0.75e-3
    peak, read = 989e12, 3.35e12
    return Machine(
        name=f"{ranks} GPU{'s' if ranks > 1 else ''} of {match[2]} GB",
        device="cuda",
        ranks=ranks,
        memory=memory,
        flops=use * peak,
        writing_flops=use * peak,
        bandwidth=bandwidth * read,
        launch=launch,
        context=0.8 * GIGA,
        slack=0.05,
        disk=1 * GIGA,
        assumptions=(
            f"a GPU: {peak / 1e12:,.0f} TFLOP/s in bfloat16 (H100 SXM), of which {use:.0%} are reached; "
            f"{read / 1e12:.2f} TB/s, of which {bandwidth:.0%} are reached",
            f"eager PyTorch: {launch * 1000:.2f} ms to start the kernels of a layer, twice as long backwards",
            "0.8 GB for CUDA and its libraries, 5 % that the allocator cannot use",
            "not measured on a GPU",
        ),
    )


def _cpu() -> Machine:
    import psutil
    import torch

    threads = torch.get_num_threads()
    cores = threads / 2  # rates are those of two
    return Machine(
        name=f"this machine's CPU, {threads} thread{'s' if threads > 1 else ''}",
        device="cpu",
        ranks=int(os.environ.get("WORLD_SIZE", 1)),
        memory=psutil.virtual_memory().total,
        flops=260e9 * cores,
        writing_flops=60e9 * cores,
        bandwidth=7e9 * cores,
        launch=0.0,
        context=0.0,
        slack=0.0,
        disk=0.5 * GIGA,
        assumptions=(
            "two cores: 260 GFLOP/s in long products, 60 GFLOP/s and 7 GB/s while writing (SmolLM2 in bfloat16 on two idle cores "
            "of an EPYC with AVX-512); a machine without bfloat16, or a busy one, is slower",
        ),
    )
