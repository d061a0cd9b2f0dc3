"""Seconds and tokens of the phases of a run."""

import time

import torch
from torch import nn

from sleepkit.reporting.live.meter import metering, phase, timed


class Decoder(nn.Module):
    def forward(self, input_ids=None, inputs_embeds=None):
        return input_ids if inputs_embeds is None else inputs_embeds


def test_tokens_belong_to_the_innermost_phase_and_to_their_kind():
    decoder = Decoder()
    with metering(decoder) as seen:
        with phase("writing"):
            with torch.no_grad():
                decoder(torch.zeros(2, 7))
                decoder(input_ids=torch.zeros(2, 1))
            with phase("training"):
                decoder(inputs_embeds=torch.zeros(1, 5, 4))
        with torch.no_grad():
            decoder(torch.zeros(1, 3))
    decoder(torch.zeros(1, 3))  # after the run
    assert seen.to_dict()["tokens"] == {
        "writing": {"read": 14, "written": 2},
        "training": {"trained": 5},
        "other": {"read": 3},
    }


def test_time_of_an_inner_phase_is_not_that_of_the_outer_one():
    @timed("targets")
    def inner():
        """Prepare."""
        time.sleep(0.05)
        return 7

    with metering(Decoder()) as seen, phase("training"):
        time.sleep(0.02)
        assert inner() == 7
    assert inner.__doc__ == "Prepare."
    assert seen.seconds["targets"] >= 0.05 and seen.seconds["training"] >= 0.02
    assert seen.seconds["training"] < 0.05 + 0.02 + seen.seconds["targets"]


def test_outside_of_a_run_nothing_is_noted():
    with phase("writing"):
        pass
    assert timed("writing")(lambda: 3)() == 3
