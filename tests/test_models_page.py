"""docs/models.md: the table of families is that of the script, and what it says of some of them is so."""

import models
import pytest

LINES = [line for line in models.PAGE.read_text().splitlines() if line.startswith("|")]
ROWS = {name.strip(): [cell.strip() for cell in cells] for _, name, *cells, _ in (line.split("|") for line in LINES[2:])}
ASKED = """Llama, Qwen2, Qwen3, Qwen3-MoE, Qwen3.5, Qwen3-Next, Gemma 2, Gemma 3 text, Phi-3, Mistral, Mixtral, GPT-2, GPT-NeoX,
    Falcon, OLMo 2, Granite, SmolLM3, LFM2, Falcon-H1, DeepSeek-V3, gpt-oss"""


def test_every_family_is_on_the_page():
    assert {name: f"`{family}`" for name, family in models.FAMILIES.items()} == {name: row[0] for name, row in ROWS.items()}
    assert {" ".join(name.split()) for name in ASKED.split(",")} <= set(ROWS)
    assert all(row[1] in ("works", "works without packing") or row[1].startswith("refused: ") for row in ROWS.values())
    assert all(ROWS[" ".join(name.split())][1].startswith("works") for name in ASKED.split(","))
    assert "Tried with transformers 5." in models.PAGE.read_text()


@pytest.mark.parametrize("name", ["Llama", "Qwen3.5", "GPT-2", "OPT", "RWKV"])
def test_the_page_says_what_a_night_comes_to(name, tmp_path):
    family = models.FAMILIES[name]
    row = models.tried(family, tmp_path, models.sleep)
    woken = models.tried(family, tmp_path, models.wake) if row.night.startswith("works") else models.Row("")
    assert woken.night == ""
    assert [f"`{family}`", row.night, row.batches, row.frozen, woken.plain] == ROWS[name]
