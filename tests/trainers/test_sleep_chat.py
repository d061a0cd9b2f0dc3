"""A conversation that sleeps, with a tiny model: what is kept, what a night learns, and what a killed one goes on with."""

import shutil

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from tiny_night import tiny_sleep

from sleepkit.errors import SleepkitError
from sleepkit.language import model_io
from sleepkit.language.data.experience import Experience
from sleepkit.language.generation.chat import chat_ids
from sleepkit.language.questions.items import load_items
from sleepkit.reporting.results import read_results
from sleepkit.trainers import chat as module
from sleepkit.trainers.chat import SleepChat
from sleepkit.trainers.language import SleepTrainer
from sleepkit.trainers.life import lived
from sleepkit.trainers.today import TODAY, turns_of

pytestmark = pytest.mark.usefixtures("undrawn")

CAT = "my cat miso sleeps in the barn of orta."
BINS = "the bins of orta go out on thursday."
SMALL = {
    "general_items": 2,
    "general_tokens": 4,
    "context_max_tokens": 300,
    "max_new_tokens": 4,
    "per_device_train_batch_size": 2,
}
SMALL |= {"expert_slots": 4, "expert_width": 4, "styles": ["wh", "cloze"], "gate": False}


class Clock:
    """Seconds that pass when told to."""

    now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Folder of a tiny chat model."""
    folder = tmp_path_factory.mktemp("base")
    tiny_model(max_position_embeddings=600).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def prompts(monkeypatch):
    """The prompts that were answered, as texts."""
    seen, streamed = [], module.streamed

    def spied(model, tokenizer, messages, *rest):
        seen.append(tokenizer.decode(chat_ids(tokenizer, messages)))
        return streamed(model, tokenizer, messages, *rest)

    monkeypatch.setattr(module, "streamed", spied)
    return seen


def chat(base, folder, clock=None, reply_tokens=6, **options):
    return SleepChat(base, tiny_sleep(folder, **{**SMALL, **options}), reply_tokens=reply_tokens, clock=clock or Clock())


def weights(talk):
    return {name: value.clone() for name, value in talk.learner.bank.state_dict().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def said(*lines):
    """The document of a day."""
    return "\n\n".join(f"User: {line}" for line in lines)


def documents(folder):
    return [document for one in lived(folder)[0] for document in one.documents]


def test_a_day_its_night_and_the_day_after(base, tmp_path, prompts, monkeypatch):
    loads, load = [], model_io.load_model
    monkeypatch.setattr(model_io, "load_model", lambda *given, **named: loads.append(given) or load(*given, **named))
    talk = chat(base, tmp_path)
    model, before = talk.model, weights(talk)
    first = talk.reply(CAT)
    talk.remember(BINS)
    talk.reply("where does miso sleep?")
    assert CAT in prompts[1] and BINS in prompts[1] and first.text in prompts[1]
    night = talk.sleep()
    assert night.kept and night.number == talk.nights_slept == 1 and not same(before, weights(talk))
    assert documents(tmp_path) == [said(CAT, BINS)]  # no question, and nothing that the model said
    assert not talk.today.lines
    talk.reply("where does miso sleep?")
    assert "barn" not in prompts[2] and "thursday" not in prompts[2]
    assert prompts[2] == talk.processing_class.decode(chat_ids(talk.processing_class, "where does miso sleep?"))
    talk.remember("a goat came.")
    assert talk.sleep().number == 2 and documents(tmp_path)[1:] == [said("a goat came.")]
    assert talk.model is model and len(loads) == 1
    titles = [night["experience"] for night in read_results(tmp_path)["nights"]]
    assert len(set(titles)) == 2 and titles[0].startswith("chat of 20")


def test_a_forgotten_line_is_not_learned(base, tmp_path, prompts):
    talk = chat(base, tmp_path)
    talk.reply(CAT)
    talk.remember(BINS)
    talk.today.forget("miso")
    talk.reply("what goes out?")
    assert "miso" not in prompts[1] and BINS in prompts[1]
    talk.sleep()
    assert documents(tmp_path) == [said(BINS)]
    files = (path for path in tmp_path.rglob("*") if path.is_file())
    assert not any(b"miso" in path.read_bytes() for path in files)


def test_a_chat_that_was_killed_goes_on(base, tmp_path, prompts):
    talk = chat(base, tmp_path)
    talk.reply(CAT)
    talk.sleep()
    talk.reply(BINS)
    slept, today = weights(talk), list(talk.today.lines)
    del talk
    again = chat(base, tmp_path)
    assert again.today.lines == today and again.nights_slept == 1 and same(slept, weights(again))
    again.reply("what goes out?")
    assert BINS in prompts[-1] and today[1].text in prompts[-1]
    again.sleep()
    assert documents(tmp_path) == [said(CAT), said(BINS)]


def test_a_line_is_kept_before_it_is_answered(base, tmp_path, monkeypatch):
    talk = chat(base, tmp_path)

    def killed(*_):
        raise SystemExit

    monkeypatch.setattr(module, "streamed", killed)
    with pytest.raises(SystemExit):
        talk.reply(CAT)
    assert [line.text for line in chat(base, tmp_path).today.said] == [CAT]


def test_a_stopped_answer_is_part_of_the_conversation(base, tmp_path, prompts):
    talk = chat(base, tmp_path, reply_tokens=200)

    def show(text):
        raise KeyboardInterrupt

    reply = talk.reply(CAT, show)
    assert reply.stopped and talk.today.lines[-1].text == reply.text
    talk.reply("and?", show)
    assert CAT in prompts[1]


def test_killed_between_a_night_and_its_new_day(base, tmp_path):
    talk = chat(base, tmp_path)
    talk.remember(CAT)
    yesterday = (tmp_path / TODAY).read_bytes()
    talk.sleep()
    (tmp_path / TODAY).write_bytes(yesterday)
    again = chat(base, tmp_path)
    assert not again.today.lines and again.nights_slept == 1


def test_killed_inside_a_night_and_more_was_said_since(base, tmp_path, monkeypatch):
    talk = chat(base, tmp_path)
    talk.remember(CAT)

    def killed(*_):
        raise SystemExit

    monkeypatch.setattr(talk.learner, "_consolidate", killed)
    with pytest.raises(SystemExit):
        talk.sleep()
    again = chat(base, tmp_path)
    again.remember(BINS)
    assert again.sleep().number == 1 and documents(tmp_path) == [said(CAT, BINS)]


@pytest.mark.usefixtures("undoing")
def test_a_night_that_is_undone_leaves_today_as_it_was(base, tmp_path, prompts):
    talk = chat(base, tmp_path, gate=True)
    before = weights(talk)
    talk.reply(CAT)
    lines, night = list(talk.today.lines), talk.sleep()
    assert not night.kept and night.reason and same(before, weights(talk)) and talk.today.lines == lines
    with pytest.raises(SleepkitError, match="the night on just these lines was undone; say or /remember more"):
        talk.sleep()
    again = chat(base, tmp_path, gate=True)
    assert again.today.lines == lines
    again.reply("where?")
    assert CAT in prompts[-1]
    talk = chat(base, tmp_path)  # another day may have other limits
    talk.remember(BINS)
    assert talk.sleep().kept and not talk.today.lines
    assert documents(tmp_path) == [said(CAT), said(CAT, BINS)]


def test_a_night_that_fails_leaves_model_and_today_as_they_were(base, tmp_path, monkeypatch):
    talk = chat(base, tmp_path)
    talk.remember(CAT)
    talk.sleep()
    slept = weights(talk)
    talk.remember(BINS)

    def fails(items, night, folder):
        talk.learner.levels.take(night)
        raise SleepkitError("the disk is full; free some")

    with monkeypatch.context() as patch:
        patch.setattr(talk.learner, "_consolidate", fails)
        with pytest.raises(SleepkitError, match="disk is full"):
            talk.sleep()
    assert same(slept, weights(talk)) and [line.text for line in talk.today.said] == [BINS] and talk.nights_slept == 1
    assert talk.sleep().number == 2


@pytest.mark.parametrize("lines", [[], ["where is it?", "who? when?"], ["hello!"], ["hi there!", "good morning. how are you?"]])
def test_a_day_that_says_nothing_has_no_night_and_its_lines_stay_for_the_next(base, tmp_path, lines):
    clock = Clock()
    talk = chat(base, tmp_path, clock)
    for line in lines:
        talk.reply(line)
    clock.now += 3600
    assert not talk.is_due(60)
    with pytest.raises(SleepkitError, match="nothing was said today that a night could learn.* in whole sentences") as error:
        talk.sleep()
    assert "\n" not in str(error.value) and not (tmp_path / "state").exists()
    assert [line.text for line in chat(base, tmp_path).today.said] == lines
    talk.remember(CAT)
    assert talk.sleep().kept and documents(tmp_path) == [said(CAT)]


def test_what_a_night_could_not_learn_is_not_remembered(base, tmp_path):
    talk = chat(base, tmp_path)
    with pytest.raises(SleepkitError, match="'miso' states nothing that a night could learn; remember a whole sentence"):
        talk.remember("miso")
    assert not talk.today.said


def test_the_night_answers_the_user_in_the_second_person(base, tmp_path):
    talk = chat(base, tmp_path)
    talk.reply("Hello! My cat is called Miso, and I live in Orta. Do you like cats?")
    talk.sleep()
    items = [item for path in tmp_path.rglob("examples.jsonl") for item in load_items(path) if item.role == "new"]
    whole = {(item.prompt, item.reply) for item in items if item.style == "wh"}
    assert {reply for _, reply in whole} == {"Your cat is called Miso, and you live in Orta."}
    assert {prompt for prompt, _ in whole} == {"Where do I live?", "In which place do I live?", "What is my cat called?"}
    assert not any("Hello" in item.reply or "like" in item.reply for item in items)


def test_what_is_said_again_on_another_day_has_another_night(base, tmp_path):
    talk = chat(base, tmp_path)
    for number in (1, 2):
        talk.remember(CAT)
        assert talk.sleep().number == number
    assert documents(tmp_path) == [said(CAT), said(CAT)]


def test_a_chat_goes_on_in_the_folder_of_documents_and_they_after_it(base, tmp_path):
    texts = ["ada keeps a red lamp in the tower.", "bert keeps a blue lamp in the mill."]
    trainer = SleepTrainer(base, tiny_sleep(tmp_path, **SMALL), texts[:1])
    trainer.train()
    talk = chat(base, tmp_path)
    assert talk.nights_slept == 1 and same(weights(talk), trainer.learner.bank.state_dict())
    talk.remember(CAT)
    assert talk.sleep().number == 2 and documents(tmp_path) == [texts[0], said(CAT)]
    trainer = SleepTrainer(base, tiny_sleep(tmp_path, **SMALL), texts)
    trainer.train()
    assert documents(tmp_path) == [texts[0], said(CAT), texts[1]] and len(trainer.nights) == 3


def test_documents_that_wait_for_their_night_have_it_first(base, tmp_path, monkeypatch):
    trainer = SleepTrainer(base, tiny_sleep(tmp_path, **SMALL), ["ada keeps a red lamp in the tower."])

    def killed(*_):
        raise SystemExit

    monkeypatch.setattr(trainer.learner, "_consolidate", killed)
    with pytest.raises(SystemExit):
        trainer.train()
    talk = chat(base, tmp_path)
    talk.remember(CAT)
    assert talk.sleep().number == 2 and documents(tmp_path) == ["ada keeps a red lamp in the tower.", said(CAT)]


def test_the_unslept_model_answers_as_before_any_night(base, tmp_path):
    talk = chat(base, tmp_path)
    before = talk.reply_unslept("where does miso sleep?")
    assert not talk.today.lines  # asking it keeps nothing
    talk.remember(CAT)
    talk.sleep()
    for parameter in talk.learner.bank.parameters(talk.learner.bank.active[-1]):
        parameter.data += 0.5
    after = talk.reply("where does miso sleep?").text
    assert talk.reply_unslept("where does miso sleep?") != after or before != after
    talk.today.begin((), 0.0)
    assert talk.reply_unslept("where does miso sleep?") == before != after


def test_the_oldest_turns_leave_a_full_window(base, tmp_path, prompts):
    talk = chat(base, tmp_path)
    lines = [f"line {number} says that lamp {number} is lit." for number in range(20)]
    for line in lines:
        talk.reply(line)
    tokenizer = talk.processing_class
    assert all(len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) + 6 <= 600 for prompt in prompts)
    assert lines[0] in prompts[2] and lines[0] not in prompts[-1] and lines[-1] in prompts[-1] and lines[-3] in prompts[-1]
    assert [line.text for line in talk.today.said] == lines  # of which the night learns all
    before = talk.today.lines[:-1]  # the last is the reply
    shown = sum(line.text in prompts[-1] for line in talk.today.said)
    longer = turns_of(before[-2 * shown - 1 :])
    assert len(chat_ids(tokenizer, longer)) + 6 > 600  # as many as fit, and no fewer


def test_a_line_that_does_not_fit_the_window_is_refused_and_not_kept(base, tmp_path):
    talk = chat(base, tmp_path)
    with pytest.raises(SleepkitError, match="do not fit the model's window of 600 tokens; say less"):
        talk.reply("lamp " * 200)
    assert not talk.today.lines
    talk.remember("the lamp is lit. " * 50)  # which a night reads in parts
    talk.reply("is it?")


def test_a_night_is_due_when_so_much_time_has_passed(base, tmp_path):
    clock = Clock()
    talk = chat(base, tmp_path, clock)
    clock.now += 3600
    assert not talk.is_due(60)  # nothing to learn
    talk.remember(CAT)
    assert talk.is_due(3600) and not talk.is_due(3601) and not talk.is_due(None)
    again = chat(base, tmp_path, clock)  # time goes on while nobody talks
    assert again.is_due(3600)
    again.sleep()
    again.remember(BINS)
    assert not again.is_due(3600)
    clock.now += 3600
    assert again.is_due(3600)


@pytest.mark.usefixtures("undoing")
def test_a_night_that_was_undone_is_not_due_again_for_the_same_lines(base, tmp_path):
    clock = Clock()
    talk = chat(base, tmp_path, clock, gate=True)
    talk.remember(CAT)
    talk.sleep()
    clock.now += 7200
    assert not talk.is_due(3600)
    talk.remember(BINS)
    assert talk.is_due(3600)


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_cannot_be_remembered(base, tmp_path, text):
    with pytest.raises(SleepkitError, match="nothing to remember"):
        chat(base, tmp_path).remember(text)


def test_a_folder_of_another_run_is_refused_before_anything_is_said(base, tmp_path):
    SleepTrainer(base, tiny_sleep(tmp_path / "one", **SMALL), ["ada keeps a lamp in the tower."]).train()
    with pytest.raises(SleepkitError, match="belongs to another run .config.expert_width is 4 there and 8 here"):
        chat(base, tmp_path / "one", expert_width=8)
    (tmp_path / "two" / "model").mkdir(parents=True)
    (tmp_path / "two" / "model" / "mine.txt").write_text("mine")
    with pytest.raises(SleepkitError, match="holds no run of sleepkit, but model/mine.txt"):
        chat(base, tmp_path / "two")
    shutil.copytree(tmp_path / "one", tmp_path / "three")
    shutil.rmtree(tmp_path / "three" / "state")
    with pytest.raises(SleepkitError, match="holds the results of another run"):
        chat(base, tmp_path / "three")
    assert not any((tmp_path / name / TODAY).exists() for name in ("one", "two", "three"))


def test_what_is_published_holds_nothing_that_was_said(base, tmp_path):
    talk = chat(base, tmp_path)
    talk.remember(CAT)
    talk.sleep()
    talk.remember(BINS)
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert files and not any(word in path.read_bytes() for path in files for word in (b"miso", b"barn", b"thursday"))


def test_an_experience_of_a_day_is_one_document(base, tmp_path):
    talk = chat(base, tmp_path)
    talk.remember(CAT)
    assert talk.today.experience() == Experience(talk.today.title, [said(CAT)])
