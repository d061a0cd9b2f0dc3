import copy
import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sample_runs import asked_run, own_run, sample_run

from sleepkit.errors import SleepkitError
from sleepkit.reporting import plots
from sleepkit.reporting.report import write_report
from sleepkit.reporting.results import RunRecord
from sleepkit.reporting.tables import comparison_table, format_duration, format_memory, format_table, format_value, markdown_table
from sleepkit.utils.files import write_json

PNG = b"\x89PNG\r\n\x1a\n"


def run(**changes):
    """A complete record of two nights, as `results.json` holds it."""
    record = RunRecord(
        method="knowledge seeding",
        seed=0,
        config={"model": "tiny", "text": "```"},
        seconds=432.7,
        accuracy_matrix=[[0.5, None], [0.25, 1.0]],
        metrics={"bwt": -0.25, "closed_book_before": 0.0, "closed_book_after": 0.625, "in_context": 0.75,
                 "recovery": 0.833, "anchor_kl": 0.0312, "closed_book_after_f1": 0.4},
        examples=[{"question": "Who is *A*|B?", "gold": "<b>Ada</b>", "before": "No\nidea", "after": "Ada"}],
        history=[{"step": step, "loss": 1 / step, "reward": step / 50, "lr": 1.0} for step in [*range(1, 51)] * 2],
        nights=[
            {"night": 1, "committed": True, "reason": "gain 0.5", "anchor_kl": 0.01},
            {"night": 2, "committed": False, "reason": "anchor KL 0.07 above 0.05", "anchor_kl": 0.07, "extra": 1},
        ],
        versions={"python": "3.11.7", "torch": "2.13.0"},
        hardware={"cpu": "Some CPU", "cores": 2, "ram_bytes": 2**34, "gpus": []},
        peak_memory_bytes=3 * 2**30,
    )  # fmt: skip
    return {**record.to_dict(), **changes}


def test_report_tells_the_run_and_shows_every_picture(tmp_path):
    write_json(tmp_path / "results.json", run())
    path = write_report(tmp_path)
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "report.md"
    assert text.startswith("# knowledge seeding, seed 0\n")
    assert "from 0.0% before sleep to **62.5%** after it" in text
    assert "**83%** of what the documents in context give" in text
    assert "7 min 13 s, with at most 3.00 GiB" in text
    assert text.index("closed book, before sleep") < text.index("backward transfer | -0.250")  # the known order
    assert "| closed_book_after_f1 | 0.400 |" in text  # an unknown metric under its own name
    assert "| 2 | undone | anchor KL 0.07 above 0.05 | 0.070 |" in text and "| 2 | 1 |" in text  # and all other numbers
    assert r"**Who is \*A\*\|B?**" in text and r"- expected: \<b>Ada\</b>" in text and "- before sleep: No idea" in text
    assert "````yaml\nmodel: tiny\n" in text  # the fence is longer than the one inside
    assert "| CPU | Some CPU, 2 cores |" in text and "| torch | 2.13.0 |" in text
    for name in ("before_after", "accuracy_matrix", "retention", "training"):
        assert f"({name}.png)" in text
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)


def test_what_was_not_measured_is_left_out_and_old_pictures_go(tmp_path):
    write_json(tmp_path / "results.json", run())
    write_report(tmp_path)
    bare = run(accuracy_matrix=[], metrics={}, examples=[], history=[], nights=[], config={})
    write_json(tmp_path / "results.json", bare)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert not list(tmp_path.glob("*.png"))
    for absent in ("## Pictures", "## Nights", "## Examples", "## Configuration", "general prompts"):
        assert absent not in text
    assert "## Software and machine" in text


def test_optional_fields_may_be_absent_and_others_may_not(tmp_path):
    results = run()
    for key in ("examples", "history", "nights"):
        del results[key]
    write_json(tmp_path / "results.json", results)
    write_report(tmp_path)
    assert not (tmp_path / "training.png").exists()
    del results["metrics"]
    write_json(tmp_path / "results.json", results)
    with pytest.raises(SleepkitError, match=r"missing \['metrics'\]"):
        write_report(tmp_path)


def test_a_folder_without_results_is_a_one_line_error(tmp_path):
    with pytest.raises(SleepkitError, match="cannot read .*results.json"):
        write_report(tmp_path)


def test_null_metrics_are_shown_as_not_measured(tmp_path):
    write_json(tmp_path / "results.json", run(metrics={"recovery": math.nan, "closed_book_before": None}))
    assert "(in context - before) | – |" in write_report(tmp_path).read_text(encoding="utf-8")
    assert not (tmp_path / "before_after.png").exists()


def test_matrix_shows_each_value_and_frames_the_night_own_experience():
    figure = plots.accuracy_matrix_figure(run())
    axes = figure.axes[0]
    assert {text.get_text() for text in axes.texts} == {"0.50", "0.25", "1.00"}
    assert len(axes.patches) == 2
    assert (axes.get_xlabel().split("\n")[0], axes.get_ylabel()) == ("experience asked about", "after night")
    large = [[0.5] * 40 for _ in range(40)]
    assert not plots.accuracy_matrix_figure({"accuracy_matrix": large}).axes[0].texts
    assert plots.accuracy_matrix_figure({"accuracy_matrix": [[0.5]]}) is None  # one number is no picture


def test_ragged_matrix_is_refused():
    with pytest.raises(SleepkitError, match=r"rows of lengths \[1, 2\]"):
        plots.accuracy_matrix_figure({"accuracy_matrix": [[1], [1, 1]]})


def test_retention_follows_each_experience_from_its_own_night():
    matrix = [[0.5, 0.9], [0.3, 0.7]]  # 0.9 was measured before experience 2 was met
    lines = plots.retention_figure({"accuracy_matrix": matrix}).axes[0].get_lines()
    assert list(lines[0].get_ydata()) == [0.5, 0.3]
    assert math.isnan(lines[1].get_ydata()[0]) and lines[1].get_ydata()[1] == 0.7
    assert list(lines[2].get_ydata()) == [0.5, 0.5]
    assert plots.retention_figure({"accuracy_matrix": [[0.5, 0.9]]}) is None
    figure = plots.experiences_met_figure({"ours": [[[0.5, 0], [0.5, 1]], [[1, 0], [1, 0.5]]], "one night": [[[0.5]]]})
    lines = {line.get_label(): line.get_ydata().tolist() for line in figure.axes[0].get_lines()}
    assert lines["ours"] == [0.75, 0.75] and "one night" not in lines


def test_training_puts_nights_one_after_the_other():
    history = [{"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.0}, {"step": 1, "loss": 3.0}, {"step": 2, "reward": 1}]
    figure = plots.training_figure({"history": history})
    losses, rewards = figure.axes
    assert [list(line.get_xdata()) for line in losses.get_lines()] == [[1, 2], [2, 2], [3]]  # night 1, divider, night 2
    assert [text.get_text() for text in losses.get_legend().get_texts()] == ["loss"]
    assert list(rewards.get_lines()[-1].get_xdata()) == [4]
    assert plots.training_figure({"history": [{"step": 1, "lr": 0.1}]}) is None


def test_before_after_names_each_bar_once():
    axes = plots.before_after_figure(run()).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.00", "0.62", "0.75", "0.40"]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["before sleep", "after sleep", "documents in context"]


def test_own_questions_have_their_bars():
    axes = plots.before_after_figure(own_run()).axes[0]
    assert [text.get_text() for text in axes.texts] == ["0.03", "0.78", "0.90", "0.90"]
    assert axes.get_xticklabels()[0].get_text() == "own questions,\nkept back"


@pytest.mark.parametrize("nights", [1, 2, 30, 120])
def test_pictures_of_few_and_of_many_nights_are_legible(nights):
    results = asked_run(nights)
    figures = [plots.accuracy_matrix_figure(results), plots.retention_figure(results), plots.training_figure(results)]
    drawn = [figure for figure in (*figures, plots.before_after_figure(results)) if figure is not None]
    assert len(drawn) == (2 if nights == 1 else 4)
    for figure in drawn:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()
        for axes in figure.axes:
            assert axes.get_window_extent(renderer).width > 5  # not squeezed away by its labels
            for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
                boxes = [label.get_window_extent(renderer) for label in labels if label.get_text() and label.get_visible()]
                crossing = [(one, two) for one, two in zip(boxes, boxes[1:], strict=False) if one.overlaps(two)]
                assert not crossing, [label.get_text() for label in labels]
        legends = [axes.get_legend().get_window_extent(renderer) for axes in figure.axes if axes.get_legend()]
        ticks = [label.get_window_extent(renderer) for axes in figure.axes for label in axes.get_xticklabels()]
        assert not [1 for legend in legends for tick in ticks if tick.width and legend.overlaps(tick)]


def test_pictures_leave_matplotlib_as_it_was():
    import matplotlib

    before = copy.deepcopy(dict(matplotlib.rcParams))
    plots.accuracy_matrix_figure(run())
    assert dict(matplotlib.rcParams) == before


def test_comparison_gives_mean_and_sample_deviation_per_method():
    first, second = run(), run(metrics={"recovery": 0.633, "bwt": None}, seconds=400.0, seed=1)
    other = run(method="LoRA", metrics={})
    lines = comparison_table([first, other, second]).splitlines()
    assert lines[0].startswith("| method | seeds | recovery |")
    assert lines[2] == "| knowledge seeding | 2 | 0.733 ± 0.141 | 0.625 | 0.031 | -0.250 | 416 ± 23 |"
    assert lines[3] == "| LoRA | 1 | – | – | – | – | 433 |"
    assert len(lines) == 4


def test_comparison_of_runs_on_own_documents_is_by_own_questions():
    table = comparison_table([own_run(), own_run(seed=1)]).splitlines()
    assert table[0] == "| method | seeds | own questions before | own questions after | anchor KL | seconds |"
    assert table[2].startswith("| knowledge_seeding | 2 | 0.031 ± 0.000 | 0.781 ± 0.000 | 0.012 ± 0.000 |")
    both = comparison_table([own_run(), asked_run()]).splitlines()
    assert "closed book after" in both[0] and both[0].index("recovery") < both[0].index("own questions after")


def test_report_of_own_documents_says_what_was_learned(tmp_path):
    write_json(tmp_path / "results.json", own_run())
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "**The model learned** from the documents. On 32 questions" in text.split("## Results")[0]
    assert "### Own questions, kept back from training: wrong after sleep (8 of 32; 6 of them, evenly spread)" in text
    assert r"**Who kept \<light> 1 in night 1?**" in text and r"- after sleep (wrong): The \*sea\* kept it." in text
    assert "| 2 | minutes of \\<March>.md | undone | general text moved by 0.0712 nats per token, above" in text


def test_answers_of_the_whole_run_are_sorted_into_right_and_wrong(tmp_path):
    write_json(tmp_path / "results.json", asked_run())
    rows = [{"question": f"{k}?", "gold": "g", "before": "b", "after": "a", "right_after": k < 50} for k in range(60)]
    write_json(tmp_path / "answers.json", rows)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "right after sleep (50 of 60; 6 of them, evenly spread)" in text and "wrong after sleep (10 of 60" in text


def test_table_aligns_numbers_right_and_text_left():
    table = format_table(["night", "kept", "KL"], [[1, True, 0.0312], [12, False, None]])
    assert table.splitlines() == [
        "night  kept     KL",
        "-----  ----  -----",
        "    1  yes   0.031",
        "   12  no        –",
    ]
    assert format_table(["a", "b"], []) == "a  b\n-  -"
    assert markdown_table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (math.nan, "–"), (True, "yes"), (12345, "12,345"), (0.5, "0.500"), (1e-5, "1.0e-05"), (0.0, "0.000")],
)
def test_format_value(value, text):
    assert format_value(value) == text


def test_durations_and_memory():
    assert [format_duration(s) for s in (3.21, 59.99, 432.7, 3900)] == ["3.2 s", "60.0 s", "7 min 13 s", "1 h 5 min"]
    assert format_memory(2**30) == "1.00 GiB"


def test_rounds_of_dreaming_are_named(tmp_path):
    metrics = {"share_positive_round_1": 0.5, "mean_reward_held_out_round_2": 0.1, "solved_round_1": 0.0, "round_1": 2}
    write_json(tmp_path / "results.json", sample_run(metrics=metrics))
    (tmp_path / "rewards.png").write_bytes(PNG)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "| share of dreams with a positive reward, round 1 | 0.500 |" in text
    assert "| mean reward of a dream, nats a token, round 2, held out | 0.100 |" in text and "| round_1 | 2 |" in text
    assert "![Rewards of dreams](rewards.png)" in text
