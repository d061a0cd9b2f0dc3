"""docs/distributed.md: its table is that of the script, and some of its cells are tried again."""

import re

import matrix
import pytest

pytestmark = pytest.mark.distributed

LINES = [line.split("|")[1:-1] for line in matrix.TABLE.search(matrix.PAGE.read_text())[0].splitlines() if line.startswith("|")]
(_, *FILES), _, *ROWS = [[cell.strip() for cell in line] for line in LINES]
CELLS = {(name, file.strip("`")): cell for name, *cells in ROWS for file, cell in zip(FILES, cells, strict=True)}


def test_every_recipe_and_file_is_on_the_page_and_none_fails():
    assert set(CELLS) == {(case, config) for case in matrix.CASES for config in matrix.CONFIGS}
    assert all(re.fullmatch(r"equal|(close|refused) \(\d+\)", cell) for cell in CELLS.values())
    assert {cell for (_, config), cell in CELLS.items() if config in ("cpu", "single_gpu", "multi_gpu")} <= {"equal"} | {
        cell for cell in CELLS.values() if cell.startswith("close")
    }


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield matrix.prepared(tmp_path_factory.mktemp("inputs"), patch)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("sleep, bf16", "zero2"),
        ("sleep, gated experts", "zero3"),
        ("sleep, `dream_rounds`", "zero3"),
        ("text_baseline", "zero1"),
    ],
)
def test_the_page_says_what_a_launch_comes_to(name, config, inputs, tmp_path):
    pytest.importorskip("deepspeed")
    refused = CELLS[name, config].startswith("refused")
    expected = {} if refused else matrix.by_itself(matrix.CASES[name], inputs, tmp_path / "one")
    cell = matrix.launched(matrix.CASES[name], config, inputs, tmp_path / "run", expected)
    assert cell.result == CELLS[name, config].split()[0], cell.detail


@pytest.mark.parametrize("name", ["sleep", "vision_baseline"])
def test_deepspeed_in_half_precision_is_refused(name, inputs, tmp_path):
    """It would cast experts, whose steps are too small for bf16."""
    pytest.importorskip("deepspeed")
    case = matrix.Case(matrix.CASES[name].line + " --bf16 true")
    cell = matrix.launched(case, "zero2", inputs, tmp_path / "run", {})
    assert (cell.result, cell.detail[:30]) == ("refused", "DeepSpeed is launched in bf16,")
