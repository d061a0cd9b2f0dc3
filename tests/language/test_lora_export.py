"""A LoRA distilled from a slept model: it answers as that does, what it loses is measured, and PEFT alone loads it."""

import json
import math

import pytest
import torch
from peft import PeftModel
from tiny import tiny_model, tiny_tokenizer
from tiny_night import GENERAL, tiny_config, tiny_grown, tiny_items
from transformers import AutoModelForCausalLM

from sleepkit.errors import SleepkitError
from sleepkit.language.config import LearnerConfig
from sleepkit.language.data.experience import Question
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.generation.chat import reply_texts
from sleepkit.language.lora_export import Exam, distilled, lora_items
from sleepkit.language.model_io import load_slept, save_model
from sleepkit.language.models.base_model import BaseModel, remember_base
from sleepkit.language.questions.items import SyntheticExample
from sleepkit.language.retention import RetentionSet
from sleepkit.language.seeding.lora import save_adapter

PROMPTS = [{"prompt": prompt, "answer": answer} for prompt, answer in GENERAL]


@pytest.fixture
def base(tmp_path):
    tiny_model().save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def slept(base, kind="ffn"):
    """A model on that base whose two experts say something else than it does."""
    model, bank = tiny_grown()
    remember_base(model, BaseModel.named(base))
    torch.manual_seed(1)
    for _ in range(2):
        slot = bank.activate()
        for parameter in bank.parameters(slot):
            parameter.data.normal_(std=0.3)
    bank.train_only(None)
    return model.eval(), bank


def told(bank):
    """Items with what the slept model says to them, as those of its nights are."""
    prompts = [item.prompt for item in tiny_items()[:5]]
    replies = reply_texts(bank.model, tiny_tokenizer(), prompts, max_new_tokens=8)
    return [SyntheticExample(prompt, reply or "mira", "", "wh") for prompt, reply in zip(prompts, replies, strict=True)]


def made(bank, folder, exam=None, **options):
    items = lora_items(told(bank), [item for item in tiny_items() if item.style == "general"])
    args = tiny_config(folder / "checkpoints", **{"max_steps": 150, **options})
    exam = exam or Exam([], tiny_items()[:3])
    return distilled(bank, tiny_tokenizer(), items, args, exam, PROMPTS[2:], LearnerConfig(max_new_tokens=4))


def test_it_comes_near_to_the_slept_model_and_says_how_near(base, tmp_path):
    model, bank = slept(base)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with made(bank, tmp_path) as (adapted, report):
        save_adapter(adapted, tmp_path / "lora")
        prompts = [{"prompt": item.prompt} for item in tiny_items()[:5]]
        asked = RetentionSet(prompts, reply_tokens=8, compared_with=bank.active)
        with adapted.disable_adapter():
            asked.prepare(model, tiny_tokenizer(), bank)
            with bank.view(()):
                far = asked.measure(model, tiny_tokenizer(), bank)["anchor_kl"]
        with bank.view(()):
            near = asked.measure(model, tiny_tokenizer(), bank)["anchor_kl"]
    assert near < far / 3
    measures = report["measures"]
    assert measures["kl_questions"]["n"] == 3 and measures["kl_general"]["n"] == 1
    assert measures["kl_questions"]["lora"] < measures["kl_questions"]["base"]
    assert {*measures["closed_book"]} == {"n", "base", "slept", "lora"}
    assert (report["steps"], report["items"], report["general_items"], report["nights"]) == (150, 5, 2, 2)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())  # and nothing of a LoRA is left


def test_peft_alone_loads_it_and_computes_the_same(base, tmp_path):
    model, bank = slept(base)
    ids = torch.arange(10)[None]
    with made(bank, tmp_path, max_steps=4) as (adapted, _), bank.view(()), torch.no_grad():
        expected = model(ids).logits
        save_adapter(adapted, tmp_path / "lora")
    alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "lora").eval()
    with torch.no_grad():
        assert torch.allclose(alone(ids).logits, expected, atol=1e-5)
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert all(".sleep_experts" not in name for name in config["target_modules"]) and (config["r"], config["lora_alpha"]) == (
        32,
        64,
    )


def test_a_seed_gives_one_lora(base, tmp_path):
    def weights(seed):
        _, bank = slept(base)
        with made(bank, tmp_path, max_steps=2, seed=seed) as (adapted, report):
            assert report["seed"] == seed
            return torch.cat([value.flatten() for name, value in adapted.named_parameters() if ".lora_" in name])

    one, again, other = weights(3), weights(3), weights(4)
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_questions_of_the_data_are_asked_before_those_of_its_own(base):
    model, bank = slept(base)
    asked = (model, tiny_tokenizer(), LearnerConfig(max_new_tokens=4))
    exam = Exam([Question("who keeps the light?", "mira")], tiny_items())
    assert exam.prompts() == ["who keeps the light?"] and len(exam) == 1 and exam.right(*asked) in (0, 1)
    assert len(Exam([], tiny_items())) == len(tiny_items()) and math.isnan(Exam([], []).right(*asked))


def test_what_cannot_be_distilled(base, tmp_path):
    with pytest.raises(SleepkitError, match="no items of its nights are left to distil a LoRA from; publish it as plain"):
        lora_items([], [SyntheticExample("a", "b", "", "general")])
    model, bank = slept(base)
    save_model(model, tiny_tokenizer(), tmp_path / "whole")
    _, _, inside = load_slept(tmp_path / "whole")
    with pytest.raises(SleepkitError, match="the base of this model lies beside its experts"), made(inside, tmp_path):
        pass
    adapter = tmp_path / "adapter"
    with made(bank, tmp_path, max_steps=2) as (adapted, _):
        adapted.peft_config["default"].base_model_name_or_path = str(base)
        save_adapter(adapted, adapter)
    remember_base(model, BaseModel.named(adapter))
    with pytest.raises(SleepkitError, match="is an adapter itself"), made(ExpertBank.of(model), tmp_path):
        pass
