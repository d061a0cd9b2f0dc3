"""docs/serve.md shows the lines that tests/serve.py runs, and the script's table says what engines got right."""

import pytest
import serve

PAGE = serve.PAGE.read_text(encoding="utf-8")
TRANSFORMERS = serve.Row("transformers", "5", "bfloat16", [serve.Reply("a b c", 7), serve.Reply("d e", 8), serve.Reply("f", 9)])


def of(replies, lengths=(7, 8, 9), exact=True):
    return serve.Row("llama.cpp", "1", "bf16", [serve.Reply(*pair) for pair in zip(replies, lengths, strict=True)], exact)


def test_the_page_shows_every_line_that_is_run():
    lines = [line for made in serve.ENVIRONMENTS.values() for line in made]
    shown = [line.format(python="python3", constraints="requirements/constraints.txt") for line in lines]
    for engine in serve.ENGINES.values():
        shown += [line.format(plain="plain", kind=engine.kind, port=8000) for line in (*engine.prepare, engine.server)]
    assert [line for line in shown if f"\n{line}\n" not in PAGE] == []


def test_the_page_has_a_row_of_each_engine():
    rows = [line.split(" | ") for line in serve.TABLE.search(PAGE)[0].splitlines()[2:]]
    expected = [("transformers", "bfloat16"), ("sleepkit ask", "bfloat16")]
    expected += [
        (name.split(",")[0], "bfloat16" if engine.kind == serve.OWN else engine.kind) for name, engine in serve.ENGINES.items()
    ]
    assert [(row[0].removeprefix("| "), row[2]) for row in rows] == expected
    for row in rows:
        if row[2] in ("bfloat16", "bf16", "f16"):
            kept, right = map(int, row[4].split(" of "))
            assert kept >= 0.95 * right > 0


def test_table_counts_right_answers_and_tokens_up_to_the_first_difference():
    other = of(["a x c", "d e", "g"])
    text = serve.table([TRANSFORMERS, other], [[True, True, False], [False, True, True]], str.split)
    assert text.splitlines()[2] == "| transformers | 5 | bfloat16 | 2 of 3 | 2 of 2 | 6 of 6 |"
    assert text.splitlines()[3] == "| llama.cpp | 1 | bf16 | 2 of 3 | 1 of 2 | 3 of 6 |"


@pytest.mark.parametrize(("exact", "said"), [(True, ["llama.cpp (bf16) has 1 of 2 right"]), (False, [])])
def test_only_unquantised_weights_must_keep_the_answers(exact, said):
    other = of(["a x c", "d e", "g"], exact=exact)
    assert serve.faults([TRANSFORMERS, other], [[True, True, False], [False, True, True]]) == said


def test_ninety_five_of_a_hundred_are_enough():
    rows = [serve.Row(name, "1", "bf16", [serve.Reply("a", 7)] * 100) for name in ("transformers", "llama.cpp")]
    assert serve.faults(rows, [[True] * 100, [True] * 95 + [False] * 5]) == []
    assert serve.faults(rows, [[True] * 100, [True] * 94 + [False] * 6]) == ["llama.cpp (bf16) has 94 of 100 right"]


def test_a_prompt_that_an_engine_reads_otherwise_is_a_fault():
    other = of(["a b c", "d e", "f"], lengths=(8, 8, 9), exact=False)
    said = "llama.cpp (bf16) reads prompts of another length than transformers"
    assert serve.faults([TRANSFORMERS, other], [[True] * 3] * 2) == [said]
