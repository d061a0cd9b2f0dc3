"""A vLLM server writes what the bare base would, and is asked for nothing that it cannot know."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from served_tiny import served
from tiny import tiny_model, tiny_tokenizer
from tiny_night import tiny_sleep

from sleepkit import SleepTrainer
from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.experts.units import ExpertBankConfig
from sleepkit.language.generation.chat import generate
from sleepkit.language.generation.vllm_server import connect
from sleepkit.language.questions.items import load_items

PROMPTS = [[5, 6, 7, 8], [9, 10, 11], [5, 6, 12]]
TEXT = "The first keeper of Skarrowmere Light was Ada Finch. Its lamp was lit in 1871 by Orla Dane."


@pytest.fixture
def tokenizer():
    return tiny_tokenizer()


def test_it_writes_what_the_model_writes_each_prompt_by_its_own_seed(tokenizer):
    model, base = tiny_model(), tiny_model()
    plain = [generate(model, tokenizer, PROMPTS, 6, temperature=t, top_p=0.9, seed=3, stop=["e"]) for t in (0.0, 1.0)]
    with served(base, tokenizer) as (url, asked):
        connect(model, tokenizer, url)
        probe = len(asked)
        assert [generate(model, tokenizer, PROMPTS, 6, temperature=t, top_p=0.9, seed=3, stop=["e"]) for t in (0.0, 1.0)] == plain
    sent = asked[probe:]
    assert sorted(one["prompt"] for one in sent) == sorted(PROMPTS * 2)
    assert len({one["seed"] for one in sent}) == len(PROMPTS)
    assert all(one["max_tokens"] == 6 and one["repetition_penalty"] == 1.0 and "e" in one["stop"] for one in sent)
    assert all(model.config.eos_token_id in one["stop_token_ids"] for one in sent)


def test_experts_and_adapters_are_never_asked_of_it(tokenizer):
    model = tiny_model()
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=2, width=4, layers="last_half"))
    with served(tiny_model(), tokenizer) as (url, asked):
        connect(model, tokenizer, url)
        bank.activate(1)
        probe = len(asked)
        generate(model, tokenizer, PROMPTS, 2)
        assert len(asked) == probe
        with bank.view(()):
            generate(model, tokenizer, PROMPTS, 2)
        assert len(asked) == probe + 3
        with bank.view(()):
            adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
            generate(adapted, tokenizer, PROMPTS, 2)
            generate(model, tokenizer, PROMPTS, 2)  # the layers are the adapter's
            assert len(asked) == probe + 3
            with adapted.disable_adapter():
                generate(model, tokenizer, PROMPTS, 2)
        assert len(asked) == probe + 6


@pytest.mark.parametrize("has_slept", [False, True])
def test_other_weights_are_refused_in_one_line(tokenizer, has_slept):
    """A slept model is compared without its experts, and has them again afterwards."""
    model = tiny_model()
    bank = ExpertBank.grow(model, ExpertBankConfig(slots=2, width=4, layers="last_half"))
    if has_slept:
        with torch.no_grad():
            for parameter in bank.parameters(bank.activate(1)):
                parameter.add_(1.0)
    before = model(torch.tensor([PROMPTS[0]])).logits
    with served(tiny_model(seed=1), tokenizer) as (url, _), pytest.raises(SleepkitError, match="another model than this one"):
        connect(model, tokenizer, url)
    with served(tiny_model(), tokenizer) as (url, _):
        connect(model, tokenizer, url)
    assert torch.equal(model(torch.tensor([PROMPTS[0]])).logits, before)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((400, {"error": "max_model_len is 8"}), r"refuses a request \(400\): .*max_model_len is 8"),
        ((200, {"choices": [{"text": "hello"}]}), "returns no token ids; use vLLM 0.10.2"),
    ],
)
def test_what_a_server_refuses_is_one_line(tokenizer, answer, message):
    with served(tiny_model(), tokenizer, lambda _: answer) as (url, _), pytest.raises(SleepkitError, match=message):
        connect(tiny_model(), tokenizer, url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nowhere", "http://"])
def test_no_server_is_one_line_with_the_remedy(tokenizer, url):
    with pytest.raises(SleepkitError, match="no vLLM server answers at .*vllm serve MODEL"):
        connect(tiny_model(), tokenizer, url)


def test_a_night_writes_the_same_items_by_a_server(tokenizer, tmp_path):
    """Two nights: on the second, too, the base writes, though the model has an expert by then."""
    options = {"general_items": 3, "general_tokens": 6, "max_new_tokens": 4, "top_k": 4, "max_steps": 1, "gate": False}
    options |= {"styles": ["wh", "question", "paraphrase"], "expert_slots": 2, "expert_width": 4}
    texts = [TEXT, TEXT.replace("Skarrowmere", "Tarvik").replace("Ada Finch", "Bram Skail")]

    def items(name, nights, **more):
        model = tiny_model(max_position_embeddings=4096)
        args = tiny_sleep(tmp_path / name, nights=nights, **options, **more)
        SleepTrainer(model, args, texts, processing_class=tokenizer).train()
        return load_items(tmp_path / name / "night_01" / "examples.jsonl")

    with served(tiny_model(max_position_embeddings=4096), tokenizer) as (url, asked):
        found = items("served", 2, generation="vllm", vllm_server_base_url=url)
    assert found == items("plain", 1)
    for name in ("skarrowmere", "tarvik"):
        assert any(name in tokenizer.decode(one["prompt"]) for one in asked)
