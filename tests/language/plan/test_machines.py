"""The machine of a plan."""

import pytest

from sleepkit.errors import SleepkitError
from sleepkit.language.plan.machines import Machine


@pytest.mark.parametrize(("text", "ranks", "memory"), [("8x80", 8, 80e9), ("1X141", 1, 141e9), (" 4 x 24 GB", 4, 24e9)])
def test_gpus_are_a_number_and_gigabytes(text, ranks, memory):
    machine = Machine.of(text)
    assert (machine.ranks, machine.memory, machine.device) == (ranks, memory, "cuda")
    assert any("TFLOP/s" in line for line in machine.assumptions)


@pytest.mark.parametrize("text", ["8", "x80", "0x80", "8x0", "eight", "8x80x2"])
def test_anything_else_is_refused_in_one_line(text):
    with pytest.raises(SleepkitError, match=r"gpus is .*; give their number and the gigabytes of each, such as 8x80"):
        Machine.of(text)


def test_a_pass_takes_as_long_as_the_slowest_part_of_it():
    gpu, cpu = Machine.of("1x80"), Machine.of(None)
    assert gpu.reading(flops=gpu.flops, weights=0, layers=1) == 1
    assert gpu.writing(flops=0, read_bytes=0, layers=10) == pytest.approx(10 * gpu.launch)
    assert cpu.writing(cpu.writing_flops, cpu.bandwidth, 10) == 2  # one after the other
