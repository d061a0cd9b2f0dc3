"""What a night of dreams costs: the night's own code scores and tries dreams on the meta device, once for a typical context.

A dream is taken to be as long as the worked dream of its style (dreaming/dreams.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch

from sleepkit.language.dreaming.dreams import Context, control_rows, dream
from sleepkit.language.dreaming.scores import GradientScorer
from sleepkit.language.dreaming.trainer import TRIALS_AT_ONCE
from sleepkit.language.dreaming.trials import Trials, prepare_rows
from sleepkit.language.plan.dry_run import Cost, counted
from sleepkit.language.questions.items import SyntheticExample

if TYPE_CHECKING:
    from sleepkit.language.dreaming.config import DreamingConfig
    from sleepkit.language.plan.night import Assumed
    from sleepkit.language.plan.passes import Passes

__all__ = ["DreamCosts", "dream_calls", "dreamed_rows", "planned_dreams"]


@dataclass(frozen=True)
class DreamCosts:
    """Costs of scoring and trying the dreams of a night, over all contexts and rounds.

    Attributes:
        tried: dreams that are tried.
        tokens: that pass through the model in scores and trials.
        scores, trials: FLOPs of all, and the memory of the largest.
        batches: of trials, one after the other, each of ``steps``.
        steps: of a trial.
    """

    tried: int
    tokens: int
    scores: Cost
    trials: Cost
    batches: int
    steps: int


def dream_calls(passes: Passes, contexts: Sequence[Context], config: DreamingConfig) -> None:
    """Let the stand-in dream about all contexts, in all rounds; its calls are noted where it stands in."""
    styles = list(islice(cycle(config.dream_styles), config.dreams_per_context))
    how = (styles, config.dream_max_tokens, config.dream_temperature, config.dream_top_p, [0] * len(contexts))
    for _ in range(config.dream_rounds):
        dream(passes.blank.model, passes.blank.tokenizer, contexts, *how)


def dreamed_rows(contexts: Sequence[Context], config: DreamingConfig, assumed: Assumed) -> list[SyntheticExample]:
    """Rows of the dreams that are taken to be accepted: as many as are kept of those that are tried."""
    styles = list(islice(cycle(config.dream_styles), round(assumed.kept * _tried(config, assumed)) * config.dream_rounds))
    return [
        SyntheticExample(f"{prompt} ({number})", reply, context.chunk.text, "dream", context.name)
        for context in contexts
        for number, style in enumerate(styles)
        for prompt, reply in control_rows(style)
    ]


def planned_dreams(
    passes: Passes, contexts: Sequence[Context], config: DreamingConfig, assumed: Assumed, nights: int
) -> DreamCosts:
    """Score and try the dreams of the context with the most questions but half, on the meta device."""
    blank, tokenizer = passes.blank, passes.blank.tokenizer
    context = sorted(contexts, key=lambda one: len(one.questions))[len(contexts) // 2]
    dreams = [control_rows(style) for style in islice(cycle(config.dream_styles), len(config.dream_styles))]
    kept, tried = round(assumed.kept * config.dreams_per_context), _tried(config, assumed)
    times = len(contexts) * config.dream_rounds
    scores, trials = Cost(), Cost()
    with blank.asleep(nights) as slot:
        if config.dream_gradient_selection:
            scores = _counted(lambda: _score(passes, dreams, slot))
        at_once = min(TRIALS_AT_ONCE, tried)
        trials = _counted(lambda: _try(passes, context, list(islice(cycle(dreams), at_once)), config))
    batches = -(-tried // TRIALS_AT_ONCE) + 1  # one of the worked dreams themselves, the zero of the reward
    rows = sum(len(tokenizer(p + r)["input_ids"]) for one in dreams for p, r in one) / len(dreams)
    asked = sum(len(tokenizer(p + r)["input_ids"]) for p, r in context.questions)
    tokens = kept * rows + (tried + len(config.dream_styles)) * (rows * config.trial_steps + asked) * config.trial_seeds
    return DreamCosts(
        tried * times,
        round(tokens * times),
        replace(scores, flops=round(scores.flops * kept / len(dreams) * times)),
        replace(trials, flops=round(trials.flops * batches * config.trial_seeds * times)),
        batches * config.trial_seeds * times,
        config.trial_steps,
    )


def _tried(config: DreamingConfig, assumed: Assumed) -> int:
    """Dreams of a context that are tried in a round."""
    return min(config.dream_keep_top + config.dream_keep_random, round(assumed.kept * config.dreams_per_context))


def _counted(run: Any) -> Cost:
    with counted() as cost, torch.no_grad():
        run()
    return cost


def _score(passes: Passes, dreams: Sequence[Sequence[tuple[str, str]]], slot: int) -> None:
    scorer = GradientScorer(passes.blank.model, slot, 0)
    for rows in dreams:
        scorer.score(prepare_rows(passes.backbone, passes.blank.tokenizer, rows))


def _try(passes: Passes, context: Context, dreams: Sequence[Sequence[tuple[str, str]]], config: DreamingConfig) -> None:
    blank = passes.blank
    trials = Trials(
        blank.model, blank.tokenizer, context.questions, config.trial_steps, config.trial_learning_rate, config.trial_rank
    )
    trials.run([prepare_rows(passes.backbone, blank.tokenizer, rows) for rows in dreams])
