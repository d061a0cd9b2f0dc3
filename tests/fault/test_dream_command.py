"""`recipes/dream.py` as it is typed: killed anywhere it ends as if it had not been, and nothing of another run is mixed in."""

import json
import shutil

import pytest
from campaign import contents, flip
from commands import COMMANDS, given_dreams, prepare
from drawing import draw_nothing
from machine import Fault, preload, run

from sleepkit.language.dreaming import trainer as dreaming_trainer

(DREAM,) = (command for command in COMMANDS if command.name == "dream")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    preload()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dreaming_trainer, "dream", given_dreams)
        draw_nothing(patch)
        yield prepare(tmp_path_factory.mktemp("inputs"))


def typed(inputs, folder, fault=None, more=()):
    return run([*DREAM.line(inputs, folder), *more], fault, watch=folder)


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """The run that nothing disturbs: its folder and its moments."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = typed(inputs, folder)
    assert done.code == 0, done.err[-3000:]
    return folder, done.moments


def moments_of(whole, inputs, name):
    """The first and the last moment whose file has ``name`` in its path."""
    _, moments = whole
    found = [number for number, moment in enumerate(moments, 1) if name in moment.rpartition("/run/")[2]]
    return found[0], found[-1]


FIRST_OR_LAST = {"state": 1, "round_1": 0, "dreamer_1": 1}


@pytest.mark.parametrize("place", FIRST_OR_LAST)
def test_killed_anywhere_it_ends_with_the_same_bytes(place, inputs, whole, tmp_path):
    ends_as_if_it_had_not_been_killed(moments_of(whole, inputs, place)[FIRST_OR_LAST[place]], inputs, whole, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("share", range(24))
def test_killed_at_many_moments_it_ends_with_the_same_bytes(share, inputs, whole, tmp_path):
    ends_as_if_it_had_not_been_killed(1 + share * (len(whole[1]) - 1) // 23, inputs, whole, tmp_path / "run")


def ends_as_if_it_had_not_been_killed(moment, inputs, whole, folder):
    assert typed(inputs, folder, Fault("kill", moment)).code == -9
    again = typed(inputs, folder)
    assert again.code == 0, again.err[-3000:]
    expected, found = contents(whole[0]), contents(folder)
    assert {name for name in {*expected, *found} if expected.get(name) != found.get(name)} == set()
    assert "dreams/dreamer_2/adapter_model.safetensors" in found and "state/expert_bank.safetensors" in found


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--seed", "7"), "seed is 42 there and 7 here"),
        (("--learning_rate", "0.1"), "config.learning_rate is 0.005 there and 0.1 here"),
        (("--dreamer_learning_rate", "0.1"), "config.dreamer_learning_rate is"),
        (("--dataset", "{inputs}/other_rows.jsonl"), "config.dataset is"),
        (("--model", "{inputs}/other_base"), "config.model is"),
        (("--resume", "false"), "holds a run; use --resume true or --overwrite true"),
    ],
)
def test_another_run_is_refused_in_one_line(more, words, inputs, whole, tmp_path):
    before = contents(whole[0])
    done = typed(inputs, whole[0], more=[word.format(inputs=inputs) for word in more])
    assert done.code == 2 and words in done.line and not done.traceback
    assert "--overwrite true" in done.line and contents(whole[0]) == before


def test_other_content_at_the_same_place_is_another_run(inputs, whole, tmp_path):
    copy, folder = tmp_path / "inputs", tmp_path / "run"
    shutil.copytree(inputs, copy)
    assert typed(copy, folder, Fault("kill", moments_of(whole, inputs, "dreamer_1")[1])).code == -9
    other = {
        "inputs.weights": ("base/model.safetensors", (copy / "other_base" / "model.safetensors").read_bytes()),
        "inputs.passages": ("rows.jsonl", (copy / "rows.jsonl").read_bytes().replace(b"Orla Finch", b"Olga Finch")),
        "inputs.chat_template": ("base/chat_template.jinja", (copy / "base" / "chat_template.jinja").read_bytes() + b" "),
    }
    for name, (file, content) in other.items():
        before = (copy / file).read_bytes()
        assert before != content
        (copy / file).write_bytes(content)
        done = typed(copy, folder)
        assert done.code == 2 and f"belongs to another run ({name} is" in done.line
        (copy / file).write_bytes(before)
    (copy / file).write_bytes(content)
    assert typed(copy, folder, more=["--overwrite", "true"]).code == 0


def test_typed_again_a_finished_run_reports_again(inputs, whole):
    before = contents(whole[0])
    seconds = json.loads((whole[0] / "results.json").read_text())["seconds"]
    done = typed(inputs, whole[0])
    assert done.code == 0 and "written to" in done.out and contents(whole[0]) == before
    assert json.loads((whole[0] / "results.json").read_text())["seconds"] >= seconds  # of all sessions


ONES = [("dreams/*/*", "held_out_3"), ("state/*", "held_out_3")]
MORE = [("held_out_*", "round_1"), ("seconds.json*", "round_2"), ("night_01/*", "state")]


@pytest.mark.parametrize(("pattern", "killed"), [*ONES, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE)])
def test_a_flipped_bit_is_never_taken(pattern, killed, inputs, whole, tmp_path):
    """In the files of a run that was killed at the first file of another kind."""
    folder = tmp_path / "run"
    assert typed(inputs, folder, Fault("kill", moments_of(whole, inputs, killed)[0])).code == -9
    assert list(folder.glob(pattern))
    for path in folder.glob(pattern):
        if path.is_file():
            flip(path)
    done = typed(inputs, folder)
    assert done.code == 0, done.err[-2000:]
    expected, found = contents(whole[0]), contents(folder)
    assert {name for name in {*expected, *found} if expected.get(name) != found.get(name)} == set()


def test_a_full_disk_is_one_line_and_the_run_goes_on(inputs, whole, tmp_path):
    for place in ("state", "dreamer_1", "results.json"):
        folder = tmp_path / place
        done = typed(inputs, folder, Fault("full", moments_of(whole, inputs, place)[0]))
        assert done.code == 2 and not done.traceback, done.err[-2000:]
        assert done.err.count("sleepkit: error: cannot write") == done.err.count("No space left on device; free some space") == 1
        assert typed(inputs, folder).code == 0 and contents(folder) == contents(whole[0])
