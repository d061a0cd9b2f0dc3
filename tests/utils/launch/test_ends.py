"""One process that ends by an error ends all others, each machine with its line, wherever they wait."""

import sys
import time

import pytest
from hosts import on_machines

from sleepkit.errors import SleepkitError
from sleepkit.runs.guard import guard

pytestmark = pytest.mark.distributed


def in_a_collective():
    import torch.distributed as dist

    dist.init_process_group("gloo")
    dist.barrier()  # to which not all come
    print("never")


def raising(error):
    def work():
        time.sleep(1)
        raise error

    return lambda: guard(work)


def waiting():
    return guard(in_a_collective)


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_what_a_user_can_repair(failing):
    works = [waiting, waiting, waiting]
    works[failing] = raising(SleepkitError("no such\nfile"))
    done = on_machines(works)
    assert [(one.returncode, one.stdout) for one in done] == [(2, "")] * 3
    assert {one.stderr for one in done} == {"sleepkit: error: no such file\n"}


def test_a_fault_says_on_other_machines_where_it_was():
    done = on_machines([waiting, raising(ZeroDivisionError("zero"))])
    assert [one.returncode for one in done] == [1, 1]
    assert all("ZeroDivisionError: zero" in one.stderr and one.stderr.count("\n") == 1 for one in done)
    assert "(process 1 on " in done[0].stderr and done[1].stderr.endswith("(process 1)\n")


def test_processes_of_one_machine_say_it_once():
    done = on_machines([waiting, waiting, raising(SleepkitError("no"))], LOCAL_RANK=["0", "1", "0"], GROUP_RANK=["0", "0", "1"])
    assert [one.returncode for one in done] == [2, 2, 2]
    assert [one.stderr for one in done] == ["sleepkit: error: no\n", "", "sleepkit: error: no\n"]


def test_a_good_end_is_silent():
    def work():
        print("done")

    done = on_machines([lambda: guard(work)] * 2)
    assert [(one.returncode, one.stdout, one.stderr) for one in done] == [(0, "done\n", "")] * 2


def test_both_fail_at_once_with_other_words():
    done = on_machines([raising(SleepkitError("first")), raising(SleepkitError("second"))])
    assert [one.returncode for one in done] == [2, 2]
    assert done[0].stderr == done[1].stderr and done[0].stderr in {f"sleepkit: error: {word}\n" for word in ("first", "second")}


def test_it_needs_no_torch_where_it_is_alone():
    assert guard(lambda: None) == 0
    assert "sleepkit.utils.launch.store" in sys.modules
