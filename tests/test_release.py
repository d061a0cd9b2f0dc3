"""Memory that a phase has freed is the system's again."""

import sys
from pathlib import Path

import pytest
import torch

from sleepkit.release import returning_blocks

MIB = 1 << 20


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_large_blocks_between_small_ones_go_back_at_once():
    torch.empty(24 * MIB, dtype=torch.uint8)  # freed: glibc would call only larger blocks large from now on
    with returning_blocks():
        before = resident()
        pairs = [(torch.ones(2 * MIB, dtype=torch.uint8), torch.ones(1024)) for _ in range(32)]
        assert resident() > before + 48 * MIB
        small = [kept for _, kept in pairs]
        del pairs
        assert resident() < before + 8 * MIB
    assert len(small) == 32


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_afterwards_blocks_are_kept_for_the_next_ones():
    with returning_blocks():
        pass
    pairs = [(torch.ones(2 * MIB, dtype=torch.uint8), torch.ones(1024)) for _ in range(32)]
    filled = resident()
    small = [kept for _, kept in pairs]
    del pairs
    assert resident() > filled - 48 * MIB
    assert len(small) == 32
