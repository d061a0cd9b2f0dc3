"""Student rollouts: the student answers prompts of the night, a judge and the edit distance score each answer.

For each prompt a group of answers is drawn, all from one random prefix of the worked reply; reward and advantage are
those of imitation.py ("Language Models Need Sleep", arXiv 2606.03979).  A function of model, items and seed: what is
done with the rollouts is the trainer's.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sleepkit.language.generation.chat import decode, generate, text_ids
from sleepkit.language.generation.prompts import PromptFormat
from sleepkit.language.models.zero3 import split_passes
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.language.seeding.imitation import (
    LocalModelJudge,
    NumberJudge,
    SemanticJudge,
    TokenF1Judge,
    group_advantages,
    imitation_reward,
    random_prefix_cut,
)
from sleepkit.language.seeding.packing import PreparedItem
from sleepkit.utils.ranks import shares

JUDGED_AT_ONCE = 8  # answers


@dataclass
class Rollout:
    """Answer that the student has sampled.

    Attributes:
        index: the item that was asked.
        reply_ids: start of the worked reply, then what the student said, with an end if it came to one.
        cut: number of tokens of that start; they carry no loss.
        advantage: relative to the group; 0 where all answers of the group earned the same.
    """

    index: int
    reply_ids: list[int]
    cut: int
    advantage: float


def sample_rollouts(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prepared: Sequence[PreparedItem],
    new: Sequence[int],
    args: KnowledgeSeedingConfig,
    seed: int,
    judge_view: Callable[[], AbstractContextManager[None]],
) -> tuple[list[Rollout], Tensor]:
    """Sample one round: ``rollout_prompts`` items of ``new``, ``num_generations`` answers to each, in random order.

    Args:
        new: indices of ``prepared`` that may be asked.
        judge_view: inside it the model is the judge (it is the model before tonight).

    Returns:
        Rollouts, empty answers left out, and the rewards of all, ``(prompts, generations)``.
    """
    generator = torch.Generator().manual_seed(seed)
    picked = random.Random(seed).sample(list(new), min(args.rollout_prompts, len(new)))
    cuts = [random_prefix_cut(len(prepared[i].reply_ids), generator) for i in picked]
    starts = [prepared[i].reply_ids[:cut] for i, cut in zip(picked, cuts, strict=True)]
    n = args.num_generations
    asked = [prepared[i].prompt_ids + start for i, start in zip(picked, starts, strict=True) for _ in range(n)]
    limit = args.max_completion_length
    made = generate(model, tokenizer, asked, limit, temperature=args.temperature, top_p=1.0, seed=seed)
    references = [prepared[i].reply_ids[cut:] for i, cut in zip(picked, cuts, strict=True) for _ in range(n)]
    with judge_view():
        rewards = _rewards(model, tokenizer, made, references, args).view(len(picked), n)
    advantages, keep = group_advantages(rewards)
    end = PromptFormat.of(tokenizer).end
    rollouts = []
    for k, tokens in enumerate(made):
        row, column = divmod(k, n)
        said = tokens + (end if len(tokens) < limit else [])
        if said:
            advantage = float(advantages[row, column]) if bool(keep[row]) else 0.0
            rollouts.append(Rollout(picked[row], starts[row] + said, cuts[row], advantage))
    order = torch.randperm(len(rollouts), generator=generator).tolist()
    return [rollouts[k] for k in order], rewards


def _rewards(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    made: Sequence[list[int]],
    references: Sequence[list[int]],
    args: KnowledgeSeedingConfig,
) -> Tensor:
    """Rewards ``(n,)``, each of which one process finds; a model that judges does so in the batches of `LocalModelJudge`."""
    judge: SemanticJudge
    if args.judge == "model":
        judge = LocalModelJudge(model, tokenizer)  # type: ignore[arg-type]
    else:
        judge = TokenF1Judge() if args.judge == "token_f1" else NumberJudge()

    def of_some(chosen: Sequence[int]) -> list[float]:
        result = imitation_reward(
            [decode(tokenizer, made[i]) for i in chosen],
            [decode(tokenizer, references[i]) for i in chosen],
            judge=judge,
            gamma=args.gamma,
            z0=args.z0 if args.z0 < 1 else int(args.z0),
            tokenize=lambda text: text_ids(tokenizer, text),
        )
        return list(map(float, result.total))

    def cut(share: Sequence[int]) -> list[list[int]]:
        return [list(share[start : start + JUDGED_AT_ONCE]) for start in range(0, len(share), JUDGED_AT_ONCE)]

    def work(passes: Sequence[list[int]]) -> dict[int, float]:
        return {i: reward for batch in passes for i, reward in zip(batch, of_some(batch), strict=True)}

    dealt = shares([len(said) + len(reference) for said, reference in zip(made, references, strict=True)])
    return torch.tensor(split_passes(dealt, cut, work), dtype=torch.float32)
