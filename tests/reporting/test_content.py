"""What a report says: whether anything was learned, why nights were kept, and examples that nobody picked."""

import pytest
from sample_runs import asked_run, image_run, own_example, own_run, sample_run

from sleepkit.cycle.gate import RetentionGate
from sleepkit.reporting.content import (
    answer_cells,
    change,
    example_groups,
    gate_words,
    night_numbers,
    nights_table,
    summary,
    tiles,
)


def test_documents_without_questions_are_told_by_own_ones():
    text = " ".join(summary(own_run()))
    assert text.startswith("**1 of 2 nights undone**: what was learned in them is not in the model. **The model learned**")
    assert "On 32 questions that were made from the documents and kept back from training" in text
    assert "from 3.1% before a night's training to **78.1%** after it" in text
    assert ("3% → 78%", "own questions", "32 kept back from training") in tiles(own_run())
    assert ("1 of 2", "nights kept", "") in tiles(own_run())


def test_questions_of_the_data_set_come_first():
    text = " ".join(summary(asked_run()))
    assert text.index("from 2.0% before sleep to **62.0%**") < text.index("to **50.0%** after it")
    assert "The model learned" not in text  # the data set's own questions have said it
    assert [what for _, what, _ in tiles(asked_run())][:2] == ["closed book", "own questions"]


@pytest.mark.parametrize(
    ("before", "after", "n", "words"),
    [
        (0.5, 0.5, 16, "**Nothing was learned**"),
        (0.5, 0.25, 16, "**Nothing was learned**"),
        (0.0, 0.125, 16, "**Little was learned, if anything**"),  # two questions
        (0.0, 0.1875, 16, "**The model learned**"),
        (0.0, 0.1, None, "**The model learned**"),
    ],
)
def test_verdict(before, after, n, words):
    metrics = {"self_test_before": before, "self_test_after": after} | ({"self_test_n": n} if n else {})
    assert summary(sample_run(metrics=metrics))[0].startswith(words)


def test_a_run_whose_nights_were_all_undone_says_so_first():
    nights = [{"night": 1, "committed": False, "reason": "x"}]
    metrics = {"self_test_before": 0.0, "self_test_after": 0.9, "self_test_n": 16}
    first, second = summary(sample_run(nights=nights, metrics=metrics))[:2]
    assert first.startswith("**No night was kept**, so the model is as it was before") and "90.0%" in second


def test_images_and_bare_runs_have_a_summary():
    assert summary(image_run())[0].startswith("On held-out images: ")
    assert summary(sample_run()) == ["It took 7 min 13 s, with at most 3.00 GiB."]
    assert tiles(sample_run()) == [("7 min 13 s", "time", "at most 3.00 GiB")]


def test_the_gate_in_words():
    gate = RetentionGate(max_anchor_kl=0.05, max_anchor_drop=0.02, min_gain=0.0, max_retention_drop=0.1)
    before = {"anchor_accuracy": 0.9, "retention": 0.9, "held_out": 0.0}
    kept = gate.decide(before, {"anchor_kl": 0.0123, "anchor_accuracy": 0.9, "retention": 0.875, "held_out": 0.8125})
    assert gate_words(kept.reason) == (
        "general text moved by 0.0123 nats per token (limit 0.05); general probes 90% → 90% (may lose 2 points); "
        "questions of earlier nights 90% → 88% (may lose 10 points); own questions 0% → 81%"
    )
    undone = gate.decide(before, {"anchor_kl": 0.0712, "anchor_accuracy": 0.8, "retention": 0.5, "held_out": 0.0})
    assert gate_words(undone.reason) == (
        "general text moved by 0.0712 nats per token, above the limit of 0.05; "
        "general probes 90% → 80%, more than the 2 points that may be lost; "
        "questions of earlier nights 90% → 50%, more than the 10 points that may be lost; "
        "own questions 0% → 0%, and had to gain something"
    )
    strict = RetentionGate(min_gain=0.25).decide({"held_out": 0.5}, {"held_out": 0.6})
    assert gate_words(strict.reason) == "own questions 50% → 60%, and had to gain more than 25 points"
    not_finite = gate.decide({"held_out": 0.5}, {"held_out": float("nan"), "anchor_kl": float("nan")})
    assert "own questions 50% → not a number" in gate_words(not_finite.reason)


@pytest.mark.parametrize("reason", ["no gate", "nothing was measured", "anchor KL 0.07 above 0.05", ""])
def test_other_reasons_stay_as_they_are(reason):
    assert gate_words(reason) == reason


def test_nights_in_rows_with_what_was_measured_only():
    headings, rows = nights_table(own_run()["nights"])
    assert headings == ["night", "experience", "verdict", "why", "own questions", "earlier nights", "anchor KL", "time"]
    assert rows[0][:3] == [1, "lighthouse.md", "kept"] and rows[0][4:] == ["6% → 81% of 16", None, 0.0123, "5 min 12 s"]
    assert rows[1][2] == "undone" and rows[1][4:6] == ["0% → 75% of 16", "90% → 60% of 16"]
    assert night_numbers(own_run()["nights"]) == (["night", "items"], [[1, 1234], [2, 900]])
    assert night_numbers([{"night": 1, "reason": "x"}])[1] == []
    dated = {"night": 1, "date": "2026-03-01", "documents": ["a.md", "b.md"], "experience": "day 1"}
    assert nights_table([dated]) == (["night", "date", "experience"], [[1, "2026-03-01", "a.md, b.md"]])


def test_change():
    assert change(0.0625, 0.8125, 16) == "6% → 81% of 16" and change(None, 0.5) == "50%" and change(0.5, None) is None


def test_right_and_wrong_examples_are_spread_evenly_and_counted():
    groups = example_groups(own_run())
    assert [group.title for group in groups] == [
        "Own questions, kept back from training: right after sleep (24 of 32; 6 of them, evenly spread)",
        "Own questions, kept back from training: wrong after sleep (8 of 32; 6 of them, evenly spread)",
        "Own questions, kept back from training: spread over all (32; 12 of them, evenly spread)",
    ]
    right, wrong, spread = (group.rows for group in groups)
    assert len(right) == len(wrong) == 6 and all(row["right_after"] for row in right)
    assert not any(row["right_after"] for row in wrong)
    assert {row["night"] for row in right} == {row["night"] for row in wrong} == {1, 2} and len(spread) == 12


def test_few_examples_are_all_shown_and_only_once():
    few = sample_run(examples=[own_example(1, k, right=k != 1) for k in range(3)])
    assert [(group.title.split(": ")[1], len(group.rows)) for group in example_groups(few)] == [
        ("right after sleep (2 of 3)", 2),
        ("wrong after sleep (1 of 3)", 1),
    ]


def test_examples_that_nobody_judged_are_spread_only():
    (group,) = [group for group in example_groups(asked_run()) if group.title.startswith("Questions of the data set")]
    assert group.title == "Questions of the data set: spread over all (12)" and len(group.rows) == 12


def test_all_answers_count_where_they_are_known():
    answers = [{"question": f"{k}?", "gold": "g", "after": "g", "right_after": k % 10 > 0} for k in range(100)]
    titles = [group.title for group in example_groups(asked_run(), answers)]
    assert titles[0] == "Questions of the data set: right after sleep (90 of 100; 6 of them, evenly spread)"
    assert titles[1] == "Questions of the data set: wrong after sleep (10 of 100; 6 of them, evenly spread)"


def test_answers_name_what_is_right_and_leave_out_what_did_not_change():
    row = {"gold": "g", "before": "b", "after": "a", "final": "a", "right_before": False, "right_after": True}
    assert answer_cells(row) == [("expected", "g", ""), ("before sleep", "b", "wrong"), ("after sleep", "a", "right")]
    assert ("after the last night", "c", "") in answer_cells({**row, "final": "c"})
