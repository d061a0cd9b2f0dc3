"""Learning to imitate: rewards and the group-relative policy gradient of knowledge seeding's RL half.

A teacher sample is cut at a random prefix, the student completes it, and a completion ``a`` is compared with the
teacher's own continuation ``b``::

    r     = gamma * r_sem + (1 - gamma) * r_abs                                  in [0, 1]
    r_sem = 1 if a frozen judge says that a and b mean the same, else 0
    r_abs = 1 - z / max(|a|, |b|)  if z <= z0, else 0                            z = token-level Levenshtein distance
    A_ik  = (r_ik - mean_k r_ik) / (std_k r_ik + 1e-4)                           group i, completion k
    loss  = - mean_t min(ratio_t A, clip(ratio_t, 1 - c, 1 + c) A)               ratio_t = exp(logp_t - old_logp_t)

Sources: "Language Models Need Sleep" (arXiv 2606.03979 v2) for the rewards; the yes/no judge is SEAL's grading idea
(arXiv 2506.10943); the group advantage is GRPO's (DeepSeekMath, arXiv 2402.03300) with TRL's sample deviation; the
distance is computed bit-parallel (Myers 1999 as restated by Hyyro 2003), one step on a Python integer of |a| bits per
token of b.

Ours: ``z0`` relative to the longer side by default (the paper prints it absolute, without a value); groups of equal
rewards are skipped, as they have no direction; the token mean over the batch (DAPO, arXiv 2503.14476: a mean per
sequence favours long wrong answers).  Left out: a KL penalty to a reference model, as the divergence to the teacher
takes its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sleepkit.errors import SleepkitError
from sleepkit.language.generation.chat import chat_ids
from sleepkit.language.questions.languages import ENGLISH, language_of
from sleepkit.reporting.scores import number, token_f1

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "ImitationRewards",
    "LocalModelJudge",
    "SemanticJudge",
    "TokenF1Judge",
    "absolute_reward",
    "clipped_surrogate",
    "group_advantages",
    "imitation_reward",
    "levenshtein",
    "random_prefix_cut",
]

Floats = npt.NDArray[np.float64]
Tokenize = Callable[[str], Sequence[Hashable]]

EPSILON = 1e-4  # TRL's, beside the deviation of a group


# Edit distance and the absolute reward


def levenshtein(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Fewest insertions, deletions and substitutions of one token that turn ``a`` into ``b``.

    Bit ``i`` of the integers below is row ``i`` of one column of the usual table; ``up`` and ``down`` say where it
    rises or falls by one from the row before, so that a column costs a few integer operations.
    """
    a, b = _tokens(a), _tokens(b)
    if not a:
        return len(b)
    where: dict[Hashable, int] = {}
    for i, token in enumerate(a):
        where[token] = where.get(token, 0) | 1 << i
    full, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    up, down, distance = full, 0, len(a)
    for token in b:
        equal = where.get(token, 0)
        vertical = equal | down
        horizontal = (((equal & up) + up) ^ up) | equal
        rise, fall = down | (full & ~(horizontal | up)), up & horizontal
        distance += bool(rise & last) - bool(fall & last)
        rise, fall = (rise << 1 | 1) & full, (fall << 1) & full
        up, down = fall | (full & ~(vertical | rise)), rise & vertical
    return distance


def absolute_reward(a: Sequence[Hashable], b: Sequence[Hashable], z0: float | int = 0.5) -> float:
    """``1 - z / max(|a|, |b|)`` if the distance ``z`` is within the limit, else 0; in [0, 1], and 1 if both are empty.

    Args:
        z0: a float in [0, 1] is a share of the longer sequence; an int >= 0 is a number of tokens (so 1 is one edit,
            and 1.0 is no limit).
    """
    longest = max(len(a), len(b))
    limit = _limit(z0, longest)
    distance = levenshtein(a, b)
    if distance > limit:
        return 0.0
    return 1 - distance / longest if longest else 1.0


# Judges of meaning


class SemanticJudge(Protocol):
    """Says for each pair whether candidate and reference mean the same: ``(batch,)`` of 0 and 1."""

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> Floats: ...


class TokenF1Judge:
    """Deterministic judge without a model: the same meaning if the SQuAD token F1 reaches ``threshold``, in (0, 1]."""

    def __init__(self, threshold: float = 0.5) -> None:
        if not 0 < threshold <= 1:
            raise SleepkitError(f"threshold is {threshold}; a token F1 to reach is above 0 and at most 1")
        self.threshold = threshold

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> Floats:
        pairs = zip(candidates, references, strict=True)
        return np.array([float(self._agree(candidate, reference)) for candidate, reference in pairs])

    def _agree(self, candidate: str, reference: str) -> bool:
        language = language_of(reference, ENGLISH)
        return candidate.split() == reference.split() or token_f1(candidate, reference, language) >= self.threshold


class NumberJudge:
    """Verifiable reward of calculations: the same if the last number of both is."""

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> Floats:
        return np.array([float(number(a, b)) for a, b in zip(candidates, references, strict=True)])


class LocalModelJudge:
    """Judge of whether two texts mean the same: a frozen causal LM that is asked in its own format, and generates nothing.

    The verdict is 1 if the next-token probability of the spellings of "yes" exceeds that of "no".  The model is not
    changed: it runs without gradients, in eval mode, and is put back into the mode it was in.

    Its verdicts are worth what the model is: SmolLM2-135M-Instruct answers no to each of 20 pairs of sentences, of
    which ten are paraphrases, so that ``r_sem`` is 0 throughout.  Try a small judge on a few pairs first.

    Args:
        model: of chats.
        tokenizer: its tokenizer.
        batch_size: pairs at once.

    Raises:
        SleepkitError: the tokenizer starts "yes" and "no" with the same token.
    """

    PROMPT = (
        "Do these two texts say the same thing? Small differences of wording do not matter; different facts do.\n\n"
        "Text 1: {reference}\n\nText 2: {candidate}\n\nAnswer with yes or no."
    )

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int = 8) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        yes, no = self._first_tokens("yes"), self._first_tokens("no")
        self.yes, self.no = sorted(yes - no), sorted(no - yes)  # both may begin with a lone space or be unknown
        if not self.yes or not self.no:
            raise SleepkitError(
                f"the judge {tokenizer.name_or_path!r} starts 'yes' and 'no' with the same token; use another judge"
            )

    def _first_tokens(self, word: str) -> set[int]:
        spellings = (word, word.capitalize(), word.upper(), f" {word}", f" {word.capitalize()}")
        return {self.tokenizer.encode(text, add_special_tokens=False)[0] for text in spellings}

    def __call__(self, candidates: Sequence[str], references: Sequence[str]) -> Floats:
        prompts = [self._prompt_ids(a, b) for a, b in zip(candidates, references, strict=True)]
        was_training = self.model.training
        self.model.eval()
        try:
            starts = range(0, len(prompts), self.batch_size)
            margins = [margin for i in starts for margin in self._margins(prompts[i : i + self.batch_size])]
        finally:
            self.model.train(was_training)
        return np.array([float(margin > 0) for margin in margins])

    def _prompt_ids(self, candidate: str, reference: str) -> list[int]:
        return chat_ids(self.tokenizer, self.PROMPT.format(candidate=candidate.strip(), reference=reference.strip()))

    @torch.no_grad()
    def _margins(self, prompts: list[list[int]]) -> list[float]:
        """log p(yes) - log p(no) after each prompt."""
        lengths = torch.tensor([len(ids) for ids in prompts])
        # Padding on the right cannot reach the earlier positions of a causal model, and needs no position ids.
        rows = [ids + [0] * (int(lengths.max()) - len(ids)) for ids in prompts]
        ids = torch.tensor(rows)  # (batch, time)
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        ends, place = torch.unique(lengths - 1, return_inverse=True)  # logits only where a prompt ends
        device = self.model.device
        logits = self.model(
            input_ids=ids.to(device),
            attention_mask=mask.long().to(device),
            logits_to_keep=ends.to(device),
            use_cache=False,
        ).logits  # (batch, ends, vocab)
        final = logits[torch.arange(len(prompts)), place].float()  # (batch, vocab)
        return (final[:, self.yes].logsumexp(-1) - final[:, self.no].logsumexp(-1)).tolist()


# The combined reward


class ImitationRewards(NamedTuple):
    """Rewards of a batch of completions, each ``(batch,)`` in [0, 1]."""

    total: Floats
    semantic: Floats
    absolute: Floats


def imitation_reward(
    candidates: Sequence[str],
    references: Sequence[str],
    *,
    judge: SemanticJudge | None,
    gamma: float = 0.5,
    z0: float | int = 0.5,
    tokenize: Tokenize = str.split,
) -> ImitationRewards:
    """``gamma * r_sem + (1 - gamma) * r_abs`` of each pair (candidate, reference).

    Args:
        judge: gives ``r_sem``; not asked, and may be None, when ``gamma`` is 0 (``semantic`` is then 0).
        gamma: weight of the semantic reward, in [0, 1].
        z0: limit of the edit distance, see `absolute_reward`.
        tokenize: splits a text for the edit distance; give a model's tokenizer for its tokens (white space otherwise).
    """
    if not 0 <= gamma <= 1:
        raise SleepkitError(f"gamma is {gamma}; the weight of the semantic reward lies between 0 and 1")
    if judge is None and gamma > 0:
        raise SleepkitError(f"gamma is {gamma} but there is no judge; give a judge, or set gamma to 0")
    pairs = list(zip(candidates, references, strict=True))
    absolute = np.array([absolute_reward(tokenize(a), tokenize(b), z0) for a, b in pairs], dtype=np.float64)
    semantic = judge(candidates, references) if judge is not None and gamma > 0 else np.zeros(len(pairs))
    return ImitationRewards(gamma * semantic + (1 - gamma) * absolute, semantic, absolute)


# From teacher samples to a policy gradient


def random_prefix_cut(length: int, generator: torch.Generator, low: float = 0.0, high: float = 0.5) -> int:
    """Number of tokens of a teacher sample to give away as prefix, uniform over ``[low, high] * length``.

    At least one token is left to complete.  ``low`` and ``high`` are shares, 0 <= low <= high <= 1.
    """
    if length < 1:
        raise SleepkitError(f"a teacher sample of {length} tokens cannot be cut; drop empty samples first")
    if not 0 <= low <= high <= 1:
        raise SleepkitError(f"prefix cuts between {low} and {high} of a sample; 0 <= low <= high <= 1 is needed")
    first = min(math.ceil(low * length), length - 1)
    last = max(first, min(math.floor(high * length), length - 1))
    return int(torch.randint(first, last + 1, (), generator=generator, device=generator.device))


def group_advantages(rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Rewards normalised inside their group.

    Args:
        rewards: ``(groups, group_size)``, group_size >= 2.

    Returns:
        advantages ``(groups, group_size)``, and the mask ``(groups,)`` of the groups to keep: a group of equal
        rewards has no direction, its advantages are 0 and it should not be counted in the mean.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise SleepkitError(f"rewards have shape {tuple(rewards.shape)}; give (groups, group_size) with group_size >= 2")
    keep = rewards.amax(1) > rewards.amin(1)
    centred = rewards - rewards.mean(1, keepdim=True)
    advantages = centred / (rewards.std(1, keepdim=True) + EPSILON)
    return torch.where(keep[:, None], advantages, torch.zeros_like(advantages)), keep


def clipped_surrogate(logp: Tensor, old_logp: Tensor, advantages: Tensor, clip: float = 0.2) -> Tensor:
    """PPO's clipped surrogate for each token, to minimise; all of one shape."""
    ratio = (logp - old_logp.detach()).exp()
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)


def _tokens(sequence: Sequence[Hashable]) -> Sequence[Hashable]:
    """A tensor's elements hash by identity, so tensors and arrays become lists."""
    return sequence.tolist() if hasattr(sequence, "tolist") else sequence


def _limit(z0: float | int, longest: int) -> float:
    if z0 < 0 or (isinstance(z0, float) and z0 > 1):
        raise SleepkitError(f"z0 is {z0}; give a share between 0.0 and 1.0, or a whole number of tokens")
    return z0 * longest if isinstance(z0, float) else z0
