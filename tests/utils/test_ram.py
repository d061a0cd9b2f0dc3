"""Memory that a phase has freed is the system's again."""

import platform
import subprocess
import sys

import pytest

# A process of its own: the heap of one that has run other tests has holes, and glibc fills those before it asks the system.
PLACES = """
import torch
from sleepkit.utils.ram import returning_blocks

def place(address):
    for line in open("/proc/self/maps"):
        first, last = (int(end, 16) for end in line.split()[0].split("-"))
        if first <= address < last:
            return "heap" if line.rstrip().endswith("[heap]") else "own"
    return "system"

def places():
    block = torch.ones(16 << 20, dtype=torch.uint8)
    address = block.data_ptr()
    held = place(address)
    del block
    return held, place(address)

torch.empty(24 << 20, dtype=torch.uint8)  # freed: glibc would call only larger blocks large from now on
with returning_blocks():
    print(*places())
print(*places())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's heap")
def test_large_blocks_are_the_systems_when_freed_and_the_heaps_afterwards():
    run = subprocess.run([sys.executable, "-c", PLACES], capture_output=True, text=True, check=True)
    inside, afterwards = (line.split() for line in run.stdout.splitlines())
    assert inside == ["own", "system"]
    assert afterwards[0] == "heap"
