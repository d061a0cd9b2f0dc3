"""Many LoRAs at once give what each gives alone."""

import pytest
import torch
from tiny import tiny_model

from sleepkit.language.dreaming.batched_lora import BatchedLora
from sleepkit.language.models.decoder import find_decoder_layers
from sleepkit.language.seeding.lora import linear_maps


@pytest.fixture
def model():
    return tiny_model("llama").float().eval()


def maps_of(model):
    return linear_maps(model, range(len(find_decoder_layers(model))))


def train(model, lora, groups, steps=3):
    """Losses of each group after each step; groups: (n, q, time) token ids."""
    n, q, time = groups.shape
    optimizer = torch.optim.AdamW(lora.parameters(), lr=1e-2)
    history = []
    with lora.on():
        for _ in range(steps):
            logits = model(groups.view(n * q, time)).logits
            losses = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), groups.view(n * q, time)[:, 1:].flatten(), reduction="none"
            )
            per_group = losses.view(n, -1).mean(1)
            optimizer.zero_grad()
            per_group.sum().backward()
            optimizer.step()
            history.append(per_group.detach())
    return torch.stack(history)


def test_silent_at_the_start_and_gone_afterwards(model):
    ids = torch.arange(12).view(2, 6)
    before = model(ids).logits
    lora = BatchedLora(maps_of(model), 2, rank=2)
    with lora.on():
        assert torch.equal(model(ids).logits, before)
        for b in lora.b.values():
            torch.nn.init.normal_(b)
        assert not torch.equal(model(ids).logits, before)
    assert torch.equal(model(ids).logits, before)


def test_together_as_alone(model):
    model.requires_grad_(False)
    groups = torch.randint(50, (3, 2, 7), generator=torch.Generator().manual_seed(0))
    together = train(model, BatchedLora(maps_of(model), 3, rank=2), groups)
    for k in range(3):
        alone = train(model, BatchedLora(maps_of(model), 1, rank=2), groups[k : k + 1])
        torch.testing.assert_close(together[:, k], alone[:, 0], rtol=1e-5, atol=1e-6)
    assert (together[-1] < together[0]).all()


def test_as_peft_computes_it(model):
    from peft import LoraConfig, get_peft_model

    ids = torch.randint(50, (2, 5), generator=torch.Generator().manual_seed(1))
    lora = BatchedLora(maps_of(model), 2, rank=2, alpha=4)
    for b in lora.b.values():
        torch.nn.init.normal_(b, std=0.1)
    with lora.on():
        ours = model(ids).logits
    adapted = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=list(maps_of(model)), task_type="CAUSAL_LM"))
    for k in range(2):
        for name, module in adapted.named_modules():
            key = name.removeprefix("base_model.model.").replace(".", "/")
            if key in lora.a:
                module.lora_A.default.weight.data.copy_(lora.a[key][k])
                module.lora_B.default.weight.data.copy_(lora.b[key][k])
        torch.testing.assert_close(adapted(ids[k : k + 1]).logits[0], ours[k], rtol=1e-4, atol=1e-5)
