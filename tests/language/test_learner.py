"""Nights of a language learner on a tiny model: what passes from level to level, and what a night leaves behind."""

from dataclasses import replace

import pytest
import torch
from tiny import tiny_model, tiny_tokenizer
from tiny_night import tiny_config

from sleepkit.errors import SleepkitError
from sleepkit.language.config import LearnerConfig
from sleepkit.language.data.experience import LEARNED, Experience, Question, together
from sleepkit.language.data.tasks import LABEL
from sleepkit.language.dreaming.config import DreamingConfig
from sleepkit.language.dreaming.pool import DreamPool
from sleepkit.language.generation.chat import chat_ids
from sleepkit.language.learner import LanguageLearner
from sleepkit.language.questions import lines
from sleepkit.language.questions.context import ContextStore
from sleepkit.language.questions.examples import SyntheticExample, load_items

STORIES = [
    Experience(
        name,
        [f"{name} keeps a red lamp in the north tower. The tower was built by {builder} in {year}."],
        [Question(f"Who built the tower of {name}?", builder)],
    )
    for name, builder, year in (
        *(("Ada", "Orla Finch", 1871), ("Bert", "Milo Hart", 1902)),
        *(("Cleo", "Ines Vole", 1930), ("Dora", "Paul Reed", 1955)),
    )
]


def make_learner(folder, model=None, max_steps=2, dreaming=None, **options):
    learning = LearnerConfig(context_max_tokens=200, max_new_tokens=4, expert_width=4, **options)
    small = {"styles": ["wh", "cloze", "keywords"], "general_items": 2, "general_tokens": 4, "replay_items": 2}
    config = tiny_config(folder, save_strategy="no", max_steps=max_steps, **small)
    return LanguageLearner(model or tiny_model(), tiny_tokenizer(), config, learning, ["name a colour.", "say hello."], dreaming)


def sleep(learner, folder, nights, start=1):
    for night in range(start, nights + 1):
        learner.wake(STORIES[night - 1])
        learner.sleep(night, folder)


def test_what_the_gate_asks_was_never_trained_on(tmp_path):
    learner = make_learner(tmp_path)
    sleep(learner, tmp_path, 2)
    trained, asked = ({(i.prompt, i.reply) for i in items} for items in (learner.rehearsal.replay, learner.rehearsal.quiz))
    assert trained and asked and not trained & asked


def test_the_gate_asks_about_what_a_changed_document_says_for_the_first_time(tmp_path):
    learner = make_learner(tmp_path)
    first = Experience("mill", ["The mill was built by ada in 1802. The lake is 40 feet deep. The tower was sold in 1811."])
    learner.wake(first)
    learner.sleep(1, tmp_path)
    learner.wake(replace(first, documents=[first.documents[0].replace("1811", "1844")], replaces=["mill"]))
    learner.sleep(2, tmp_path)
    asked = [item for item in learner.rehearsal.quiz if item.night == 2]
    assert asked and all("1844" in item.reply for item in asked)


def test_what_a_changed_document_says_for_the_first_time_is_asked_about_more(tmp_path):
    text = "The mill was built by ada in 1802. The lake is 40 feet deep. The tower was sold in {}."
    counts = []
    for replaces in ([], ["mill"]):
        learner = make_learner(tmp_path / str(len(replaces)))
        learner.wake(Experience("mill", [text.format(1811)], titles=["mill"]))
        learner.sleep(1, tmp_path / str(len(replaces)))
        learner.wake(Experience("mill", [text.format(1844)], titles=["mill"], replaces=replaces))
        items = learner.write_items(2)
        counts.append([sum(word in item.reply for item in items) for word in ("1844", "40 feet")])
        assert len({(item.prompt, item.reply) for item in items}) == len(items)
    (new_before, same_before), (new, same) = counts
    assert new > new_before and same == same_before


def test_replay_takes_what_is_close_to_tonight_and_some_of_the_rest(tmp_path):
    learner = make_learner(tmp_path)
    sleep(learner, tmp_path, 3)
    learner.wake(STORIES[0])
    learner.seeding.replay_items = 6
    chosen = learner.rehearsal.draw(4, [], learner.day.words())
    assert len(chosen) == len(set(chosen)) == 6 and sum(item.source == "Ada" for item in chosen) >= 3
    assert learner.rehearsal.draw(4, [], learner.day.words()) == chosen
    outdated = replace(chosen[0], context="something newer", style="wh")
    assert chosen[0].prompt not in [item.prompt for item in learner.rehearsal.draw(4, [outdated], learner.day.words())]


def test_in_context_a_task_is_shown_as_turns_of_a_chat(tmp_path):
    first, second = (Question(f"Which is {name}?", name, LABEL) for name in ("one", "two"))
    task = Experience("task", ["text"], [first, replace(second, document=1)], examples=[[first], [second, first]])
    asked = make_learner(tmp_path).asked
    assert asked(task, first, False) == "Which is one?"
    turns = asked(task, task.questions[1], True)
    assert [turn["content"] for turn in turns] == ["Which is two?", "two", "Which is one?", "one", "Which is two?"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 + ["user"]
    short = make_learner(tmp_path, tiny_model(max_position_embeddings=len(chat_ids(tiny_tokenizer(), turns)) + 3)).asked
    assert short(task, task.questions[1], True) == [*turns[:2], turns[4]]  # four tokens are for the answer


def test_a_document_longer_than_the_window_can_be_asked_about(tmp_path):
    long = "the old clock stood still. " * 30 + "Orla Finch built the tower. " + "the old clock stood still. " * 30
    story = Experience("Tarn", [long], [Question("Who built the tower?", "Orla Finch")])
    learner = make_learner(tmp_path)
    assert "Orla Finch" in learner.asked(story, story.questions[0], True)
    assert len(learner.evaluate([story], in_context=True)[0].answers) == 1


def test_pairs_of_a_user_are_all_learned_and_their_rewordings_are_kept_back(tmp_path, monkeypatch):
    learner = make_learner(tmp_path, tiny_model(max_position_embeddings=1024))
    learner.seeding.styles = ["wh", "paraphrase"]
    pairs = [Question(f"Who is captain {k}?", f"Ida Brook {k}.", LEARNED) for k in range(9)]
    faq = Experience("faq", ["\n\n".join(f"Q: {one.question}\nA: {one.answer}" for one in pairs)], pairs, notes=pairs)
    reworded = [
        SyntheticExample(f"Which person is captain {k}?", f"Ida Brook {k}.", "", "paraphrase", "faq", f"{k}") for k in range(3)
    ]
    monkeypatch.setattr("sleepkit.language.night_items.paraphrases", lambda *_: reworded)
    learner.wake(together([faq, STORIES[0]]))
    learner.sleep(1, tmp_path)
    items = load_items(tmp_path / "night_01" / "examples.jsonl")
    own = [item for item in items if item.style == "own"]
    assert [(item.prompt, item.reply) for item in own] == [(pair.question, pair.answer) for pair in pairs]
    assert not any(item.reply.startswith(("A:", "Q:")) for item in items)
    assert any(item.source == "Ada" and item.style == "wh" for item in items)  # the story beside them is read
    quiz = learner.rehearsal.quiz
    assert quiz and not any(item.style == "own" for item in quiz)
    assert 0 < sum(item.prompt in {one.prompt for one in reworded} for item in quiz) < 3


def test_pairs_alone_are_learned_even_one(tmp_path):
    learner = make_learner(tmp_path)
    pair = Question("Who is the captain?", "Ida Brook.", LEARNED)
    learner.wake(Experience("faq", ["Q: Who is the captain?\nA: Ida Brook."], [pair], notes=[pair]))
    outcome = learner.sleep(1, tmp_path)
    assert outcome["items_by_style"]["own"] == 1 and "held_out" not in outcome["after"]


def test_a_chat_is_learned_by_its_pairs_and_by_what_it_states(tmp_path):
    learner = make_learner(tmp_path)
    chat = "User: Who is the captain?\nAssistant: Ida Brook was made captain in 1907.\nUser: Ok"
    pair = Question("Who is the captain?", "Ida Brook was made captain in 1907.", LEARNED)
    learner.wake(Experience("chat", [chat], notes=[pair], also_read=[0]))
    items = learner.write_items(1)
    assert items[0].style == "own" and len(items) > 3
    assert not any("User" in f"{item.prompt} {item.reply}" or "Assistant" in f"{item.prompt} {item.reply}" for item in items)
    learner.wake(Experience("chat", ["User: Who is the captain?\nAssistant: Ida"], notes=[pair], also_read=[0]))
    assert [item.style for item in learner.write_items(1)] == ["own"]  # nothing else is said


@pytest.mark.parametrize("again", ["none", "notes", "all"])
def test_kept_notes_are_learned_again_or_stay_as_they_are(again, tmp_path):
    learner = make_learner(tmp_path)
    learner.seeding.rehearse_as_new, learner.seeding.notes_kept = again, 1
    for night in (1, 2, 3):
        notes = [Question(f"say {k} of {night}.", f"label {night}", LABEL) for k in range(3)]
        learner.wake(Experience(f"Task {night}", [f"Task {night}."], notes=notes))
        learner.sleep(night, tmp_path)
    assert [item.night for item in learner.rehearsal.replay] == [1, 2, 3]  # one of each, and each once
    items = load_items(tmp_path / "night_03" / "examples.jsonl")
    earlier = [item for item in items if item.night]
    assert [item.span for item in earlier] == ["label 1", "label 2"]
    assert {item.role for item in earlier} == {"replay" if again == "none" else "again"}
    assert not any(item in learner.rehearsal.quiz for item in earlier)


@pytest.mark.parametrize("again", ["notes", "all"])
def test_facts_are_learned_again_if_all_is(again, tmp_path):
    learner = make_learner(tmp_path)
    learner.seeding.rehearse_as_new = again
    sleep(learner, tmp_path, 2)
    earlier = [item for item in load_items(tmp_path / "night_02" / "examples.jsonl") if item.night]
    assert {item.role for item in earlier} == {"again" if again == "all" else "replay"}
    assert not any(item.context for item in earlier)


def test_a_fast_adapter_is_the_other_sender(tmp_path):
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learner = make_learner(tmp_path, model, sender="adapter")
    learner.wake(STORIES[0])
    outcome = learner.sleep(1, tmp_path)
    assert outcome["history"] and learner.bank.active == [0]
    state = model.state_dict()
    assert not [name for name in state if "lora" in name]
    assert all(torch.equal(state[name], value) for name, value in before.items())  # the LoRA is gone, the base untouched
    assert any(experts[0].down_proj.any() for experts in learner.bank.per_layer())


def test_the_adapter_teaches_and_the_student_is_without_it(tmp_path, monkeypatch):
    from sleepkit.language.seeding import fast_adapter

    seen = []

    class Watched(fast_adapter.AdapterSeedingTrainer):
        def run(self, *args):
            with self.teacher_view():
                taught = self.lm(torch.arange(8)[None]).logits
            plain = self.lm(torch.arange(8)[None]).logits
            with self.adapted.disable_adapter():
                without = self.lm(torch.arange(8)[None]).logits
            trainable = {name.split(".")[-1] for name, p in self.lm.named_parameters() if p.requires_grad}
            same_prompt = all(self.teacher_prompt(i) == p.prompt_ids for i, p in zip(self.items, self.prepared, strict=True))
            seen.append((torch.equal(plain, without), torch.equal(plain, taught), trainable, same_prompt))
            return super().run(*args)

    monkeypatch.setattr("sleepkit.language.learner.AdapterSeedingTrainer", Watched)
    learner = make_learner(tmp_path, sender="adapter", max_steps=4)
    learner.wake(STORIES[0])
    learner.sleep(1, tmp_path)
    assert seen == [(True, False, {"gate_proj", "up_proj", "down_proj", "shared"}, True)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chain": [2, 4]}, "chain starts with 2; the context is passed on every night"),
        ({"chain": [1, 4], "expansion": False}, "expansion is off"),
        ({"chain": [1, 4, 16], "expert_slots": 8}, "needs at least 10"),
        ({"chain": [1, 4, 6]}, "each a multiple of the one before"),
        ({"sender": "rag"}, "sender is 'rag'; use one of context, adapter"),
    ],
)
def test_chains_and_senders_that_cannot_be(options, message):
    with pytest.raises(SleepkitError, match=message):
        LearnerConfig(**options)


@pytest.fixture
def dreamed(monkeypatch):
    """Each context is dreamed of as itself and as noise: a tiny model writes no sentences."""
    from sleepkit.language.dreaming import trainer as dreaming_trainer
    from sleepkit.language.dreaming.dreams import Dream, Dreamed, context_name

    def dreamed(context):
        chunk = context.chunk
        lines = chunk.text.split(". ")
        good = Dream("rewrite", chunk.text, [(f"Tell me about {chunk.title}.", line) for line in lines], context_name(chunk))
        return Dreamed([good, Dream("long", "zzzz", [("say zz.", "zzzz zzzz zzzz")], context_name(chunk))])

    monkeypatch.setattr(dreaming_trainer, "dream", lambda _, __, contexts, *___: list(map(dreamed, contexts)))


def test_a_full_night_dreams_and_rehearses_and_later_nights_replay_dreams(tmp_path, dreamed):
    small = {
        "dream_rounds": 2,
        "trial_steps": 4,
        "trial_control": False,
        "trial_rank": 2,
        "trial_learning_rate": 1e-2,
        "dreamer_rank": 2,
    }
    learner = make_learner(tmp_path, dreaming=DreamingConfig(**small, dream_rehearsal_steps=2, dream_replay_share=1.0))
    learner.wake(STORIES[0])
    empty = learner.snapshot()
    outcome = learner.sleep(1, tmp_path)
    assert [log["round"] for log in outcome["dreams"]] == [1, 2]
    assert outcome["dreams_accepted"] == sum(log["accepted"] for log in outcome["dreams"]) > 0
    alone = make_learner(tmp_path / "alone")
    alone.wake(STORIES[0])
    assert outcome["train_tokens"] > alone.sleep(1, tmp_path / "alone")["train_tokens"]  # rehearsing dreams is training too
    assert learner.rehearsal.dreams.items and all(
        item.style == "replay" and item.night == 1 for item in learner.rehearsal.dreams.items
    )
    assert (tmp_path / "night_01" / "dreams" / "round_2" / "log.json").is_file()
    kept = learner.snapshot()
    learner.save(tmp_path / "saved")
    learner.wake(STORIES[1])
    learner.sleep(2, tmp_path)
    replayed = [item for item in load_items(tmp_path / "night_02" / "examples.jsonl") if item.style == "replay"]
    assert replayed and all(item in learner.rehearsal.dreams.items or item.night == 1 for item in replayed)
    assert {item.prompt for item in replayed} <= {f"Tell me about {STORIES[0].name}.", "say zz."}
    learner.restore(kept)
    assert learner.rehearsal.dreams.items == make_loaded(tmp_path).rehearsal.dreams.items
    learner.restore(empty)
    assert learner.rehearsal.dreams.items == [] and learner.rehearsal.dreams.seen == 0


def make_loaded(folder):
    learner = make_learner(folder)
    learner.load(folder / "saved")
    return learner


def test_the_dream_pool_is_a_uniform_sample_of_bounded_size(tmp_path):
    counts = [0] * 30
    for seed in range(300):
        pool = DreamPool(5)
        for start in range(0, 30, 3):
            items = [SyntheticExample(str(k), "r", "", "replay") for k in range(start, start + 3)]
            pool.add(items, seed * 100 + start)
        assert len(pool.items) == 5 and pool.seen == 30
        for item in pool.items:
            counts[int(item.prompt)] += 1
    assert min(counts) > 25 and max(counts) < 80  # 50 expected, standard deviation 6.5
    other = DreamPool(5)
    other.from_tensor(pool.to_tensor())
    assert other == pool
    (tmp_path / "dreams.json").write_text("{")
    with pytest.raises(SleepkitError, match="cannot be read"):
        pool.load(tmp_path / "dreams.json")


def test_a_night_reads_its_documents_once(tmp_path, monkeypatch):
    cut, read = [], []
    chunks, passages = ContextStore.chunks, lines.passages
    monkeypatch.setattr(ContextStore, "chunks", lambda store: cut.append(store) or chunks(store))
    monkeypatch.setattr(lines, "passages", lambda text, *others: read.append(text) or passages(text, *others))
    learner = make_learner(tmp_path)
    for night in (1, 2):
        learner.wake(Experience("mill", [f"The mill was built by ada in 18{night}2. The lake is 40 feet deep."]))
        learner.sleep(night, tmp_path)
        assert len(cut) == len(read) == night


def test_a_night_tells_how_much_of_its_documents_it_covers(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("sleepkit.language.learner.progress.say", told.append)
    learner = make_learner(tmp_path)
    learner.wake(STORIES[0])
    assert learner.sleep(1, tmp_path)["coverage"] == 1 and not any("covers" in line for line in told)
    one = SyntheticExample("Who keeps?", "Ada.", "Ada keeps.", "keywords", "Ada", "Ada")
    monkeypatch.setattr(learner, "write_items", lambda night: [one])
    learner.wake(STORIES[0])
    assert learner.sleep(2, tmp_path)["coverage"] == 0 and any("covers 0 % of its sentences" in line for line in told)
