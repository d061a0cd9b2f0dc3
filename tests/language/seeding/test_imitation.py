"""Edit distance, rewards, cuts, advantages and policy loss against brute force."""

import math
import random

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sleepkit.errors import SleepkitError
from sleepkit.language.seeding.imitation import (
    LocalModelJudge,
    NumberJudge,
    TokenF1Judge,
    absolute_reward,
    clipped_surrogate,
    group_advantages,
    imitation_reward,
    levenshtein,
    random_prefix_cut,
)


def brute_levenshtein(a, b):
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            replace = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, replace)
    return table[-1][-1]


# Edit distance


def test_levenshtein_by_hand():
    assert levenshtein("kitten", "sitting") == 3
    assert levenshtein("", "abc") == levenshtein("abc", "") == 3
    assert levenshtein([], []) == 0


@pytest.mark.parametrize("alphabet", [2, 5, 50])
def test_levenshtein_against_table(alphabet):
    rng = random.Random(alphabet)
    for _ in range(150):
        a = [rng.randrange(alphabet) for _ in range(rng.randrange(90))]
        b = [rng.randrange(alphabet) for _ in range(rng.randrange(90))]
        if rng.random() < 0.5:  # a few edits of a, as a good student makes
            b = [token if rng.random() < 0.9 else rng.randrange(alphabet) for token in a if rng.random() < 0.95]
        assert levenshtein(a, b) == brute_levenshtein(a, b) == levenshtein(b, a)


def test_levenshtein_of_tensors():
    assert levenshtein(torch.tensor([1, 2, 3, 4]), np.array([1, 3, 4])) == 1


# Rewards


def test_absolute_reward_relative_limit():
    a = list("abcdefgh")
    for edits in range(9):
        b = ["x"] * edits + a[edits:]
        expected = 1 - edits / 8 if edits <= 0.5 * 8 else 0.0
        assert absolute_reward(a, b, 0.5) == pytest.approx(expected)
    assert absolute_reward(a, ["x"] * 8, 1.0) == 0.0  # no limit, nothing in common
    assert absolute_reward(a, a, 0.0) == 1.0


def test_absolute_reward_absolute_limit():
    assert absolute_reward("abcd", "abxx", 2) == pytest.approx(0.5)
    assert absolute_reward("abcd", "axxx", 2) == 0.0
    assert absolute_reward("abcd", "abcde", 1) == pytest.approx(0.8)  # divided by the longer side


def test_absolute_reward_of_empty_sequences():
    assert absolute_reward([], []) == 1.0
    assert absolute_reward([], [1, 2]) == 0.0


@pytest.mark.parametrize("z0", [-1, -0.1, 1.5])
def test_bad_limit(z0):
    with pytest.raises(SleepkitError, match=f"z0 is {z0}"):
        absolute_reward("a", "a", z0)


def test_combined_reward():
    candidates, references = ["the cat sat", "a dog ran", "cat"], ["a cat sat", "no idea at all", "cat"]
    rewards = imitation_reward(candidates, references, judge=TokenF1Judge(0.5), gamma=0.25, z0=0.5)
    assert rewards.semantic.tolist() == [1.0, 0.0, 1.0]
    assert rewards.absolute == pytest.approx([2 / 3, 0.0, 1.0])
    assert rewards.total == pytest.approx([0.25 + 0.75 * 2 / 3, 0.0, 1.0])


def test_tokens_of_the_distance_are_the_callers():
    words = imitation_reward(["abc"], ["abd"], judge=None, gamma=0.0)
    letters = imitation_reward(["abc"], ["abd"], judge=None, gamma=0.0, tokenize=list)
    assert words.total[0] == 0.0
    assert letters.total[0] == pytest.approx(2 / 3)


def test_ablations_of_the_reward():
    def never(candidates, references):
        raise AssertionError("gamma is 0")

    assert imitation_reward(["a"], ["a"], judge=never, gamma=0.0).total.tolist() == [1.0]
    assert imitation_reward(["a"], ["b"], judge=TokenF1Judge(), gamma=1.0).total.tolist() == [0.0]
    with pytest.raises(SleepkitError, match="no judge"):
        imitation_reward(["a"], ["a"], judge=None, gamma=0.5)
    with pytest.raises(SleepkitError, match="gamma is 1.5"):
        imitation_reward(["a"], ["a"], judge=None, gamma=1.5)


# Judges


def test_token_f1_judge():
    judge = TokenF1Judge(threshold=0.6)
    verdicts = judge(["the red house", "blue", "!", "Red  House."], ["red house", "red", "!", "a red house"])
    assert verdicts.tolist() == [1, 0, 1, 1]
    with pytest.raises(SleepkitError, match="threshold is 0"):
        TokenF1Judge(0)
    assert NumberJudge()(["6 * 7 = 42", "41"], ["#### 42", "#### 42"]).tolist() == [1, 0]


@pytest.fixture(scope="module")
def judge_parts():
    words = ["[UNK]", "[PAD]", "yes", "Yes", "no", "No", "Text", "red", "blue", "house", "the", "."]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %} . the"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=1.0,  # a random model that listens to its prompt
    )
    return LlamaForCausalLM(config), tokenizer


def test_local_model_judge_reads_the_next_token(judge_parts):
    model, tokenizer = judge_parts
    judge = LocalModelJudge(model, tokenizer, batch_size=3)
    rng = random.Random(0)
    texts = [" ".join(rng.choices(["red", "blue", "house", "the"], k=rng.randrange(1, 12))) for _ in range(20)]
    candidates, references = texts[:10], texts[10:]
    expected = []
    for a, b in zip(candidates, references, strict=True):  # one at a time, no padding, all logits
        content = judge.PROMPT.format(candidate=a, reference=b)
        ids = tokenizer(content + " . the", return_tensors="pt").input_ids
        with torch.no_grad():
            p = model.eval()(ids).logits[0, -1].softmax(-1)
        expected.append(float(p[[2, 3]].sum() > p[[4, 5]].sum()))
    assert len(set(expected)) == 2  # the test can fail
    model.train()
    assert judge(candidates, references).tolist() == expected
    assert model.training and all(p.grad is None for p in model.parameters())
    assert judge([], []).tolist() == []


def test_local_model_judge_refuses(judge_parts):
    model, tokenizer = judge_parts
    backend = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    other = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", chat_template="x")
    with pytest.raises(SleepkitError, match="same token"):
        LocalModelJudge(model, other)


# Prefix cuts


def test_prefix_cuts_are_uniform_and_leave_a_token():
    generator = torch.Generator().manual_seed(0)
    cuts = [random_prefix_cut(10, generator, 0.2, 0.6) for _ in range(2000)]
    counts = {cut: cuts.count(cut) for cut in range(11)}
    assert {cut for cut, count in counts.items() if count} == {2, 3, 4, 5, 6}
    assert all(300 < counts[cut] < 500 for cut in range(2, 7))
    for length in range(1, 8):
        assert all(0 <= random_prefix_cut(length, generator, 0.0, 1.0) < length for _ in range(50))
    assert random_prefix_cut(1, generator, 0.5, 0.9) == 0
    assert random_prefix_cut(3, generator, 0.4, 0.5) == 2  # no whole token in between: the next one


def test_prefix_cuts_follow_the_generator():
    def cuts(seed):
        generator = torch.Generator().manual_seed(seed)
        return [random_prefix_cut(50, generator) for _ in range(20)]

    assert cuts(1) == cuts(1) != cuts(2)


@pytest.mark.parametrize(("length", "low", "high"), [(0, 0, 1), (5, 0.6, 0.5), (5, -0.1, 0.5), (5, 0, 1.1)])
def test_bad_prefix_cuts(length, low, high):
    with pytest.raises(SleepkitError):
        random_prefix_cut(length, torch.Generator(), low, high)


# Advantages and loss


def test_group_advantages_against_loops():
    torch.manual_seed(0)
    rewards = torch.rand(5, 8)
    rewards[1] = 0.1  # no variance
    rewards[3] = torch.tensor([1.0, 0, 0, 0, 0, 0, 0, 0])
    advantages, keep = group_advantages(rewards)
    assert keep.tolist() == [True, False, True, True, True]
    for group, row in zip(rewards.tolist(), advantages.tolist(), strict=True):
        mean = sum(group) / 8
        deviation = math.sqrt(sum((r - mean) ** 2 for r in group) / 7)
        expected = [(r - mean) / (deviation + 1e-4) if max(group) > min(group) else 0.0 for r in group]
        assert row == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", [(8,), (3, 1), (2, 2, 2)])
def test_group_advantages_need_groups(shape):
    with pytest.raises(SleepkitError, match="group_size >= 2"):
        group_advantages(torch.rand(shape))


def test_the_clipped_surrogate_against_loops():
    torch.manual_seed(0)
    logp, old, advantages = -torch.rand(3, 6), -torch.rand(3, 6), torch.randn(3, 6)
    for now, before, a, found in zip(
        *(x.flatten().tolist() for x in (logp, old, advantages)),
        clipped_surrogate(logp, old, advantages, 0.2).flatten().tolist(),
        strict=True,
    ):
        ratio = math.exp(now - before)
        assert found == pytest.approx(-min(ratio * a, min(max(ratio, 0.8), 1.2) * a), abs=1e-6)


def test_its_gradient_is_minus_the_advantage_on_policy_and_0_past_the_clip():
    logp = torch.tensor([-1.0, -2.0, -1.0], requires_grad=True)
    clipped_surrogate(logp, torch.tensor([-1.0, -2.0, -2.0]), torch.tensor([2.0, 2.0, 3.0])).sum().backward()
    torch.testing.assert_close(logp.grad, torch.tensor([-2.0, -2.0, 0.0]))
