"""What a forgetting measured, in words."""

from sleepkit.language.forgetting.report import lines_of


def measured(name, before, after, unslept, n):
    return {f"{name}_before": before, f"{name}_after": after, f"{name}_unslept": unslept, f"{name}_n": n}


TRAINED = {"traces_before": 0.4, "traces_after": 0.01, "others_lost": 0.02, "forgetting_steps": 80}


def test_all_that_was_measured_is_told():
    row = TRAINED | measured("forgotten", 0.75, 0.0, 0.0, 4) | measured("others", 0.5, 0.5, 0.0, 8)
    row |= measured("forgotten_loss", 1.5, 4.0, 4.1, 12) | {"membership_before": 0.97, "membership_after": 0.5}
    assert lines_of(row) == [
        "traces in other experts: 0.40 nats per token of its replies, 0.01 after 80 steps; items of other nights lost 0.02",
        "closed book on what was forgotten: 75.0% before, 0.0% now, 0.0% without any sleep (4 questions)",
        "closed book on all other nights: 50.0% before, 50.0% now, 0.0% without any sleep (8 questions)",
        "loss on the text that was forgotten: 1.50 before, 4.00 now, 4.10 without any sleep (nats per token, 12 passages)",
        "by that loss, less what it is without any sleep, its passages are told from those prompts with an AUC of 0.97 before, "
        "0.50 now (0.5: not at all)",
    ]


def test_what_is_left_is_told():
    said = lines_of(TRAINED | {"traces_after": 0.3} | measured("forgotten", 0.75, 0.25, 0.0, 4))
    assert "traces are left; a model without any is one that starts anew" in said[1]
    assert "more than the model without any sleep answers" in said[-1]
    within = lines_of(measured("forgotten", 0.75, 0.02, 0.0, 50))
    assert not any("more than" in line for line in within)  # two points


def test_what_could_not_be_measured_is_told():
    said = lines_of({"forgetting_steps": 0})
    assert said == [
        "it has left no items, so what other experts hold of it is not known",
        "there are no questions about it, so nothing could be asked",
    ]
    assert lines_of({"traces_before": 0.01, "traces_after": 0.01, "forgetting_steps": 0})[0] == (
        "other experts hold no traces of it (0.01 nats per token of its replies)"
    )
