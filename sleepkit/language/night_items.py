"""What a night trains on beside the items of earlier nights: examples about the day, and general prompts.

    about_day(model, tokenizer, day, args, seed)     notes as they are, in other words, and questions about the texts
    general_items(...)                               prompts about nothing in particular, with the unslept model's replies
    plan_of(args, day, items, ...)                   what lies ahead tonight, in words

Left out: how questions are written (questions/), what earlier nights left (rehearsal.py), and what is kept back (self_test.py).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.language.day import Day
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.language.generation.chat import chat_ids, decode, generate
from sleepkit.language.questions.document_view import notes_that_fit
from sleepkit.language.questions.examples import NothingToAskError, write_examples
from sleepkit.language.questions.items import OWN, ROLES, SyntheticExample
from sleepkit.language.questions.writer import paraphrases
from sleepkit.language.seeding.batch_plan import BatchPlan
from sleepkit.language.seeding.config import KnowledgeSeedingConfig
from sleepkit.reporting.live.plan import plan_text

__all__ = ["about_day", "general_items", "plan_of"]

REWORDED = 300  # characters of a question that is put in other words


def about_day(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, day: Day, args: KnowledgeSeedingConfig, seed: int
) -> list[SyntheticExample]:
    """Take the notes, which are learned as they are, and let the model write about the texts.

    It also puts questions that the user gave in other words: those can be kept back for the gate.

    Raises:
        NothingToAskError: there are no notes, and nothing in the texts can be asked or quoted.
    """
    items = notes_that_fit(day.notes, model, tokenizer)
    given = [note for note in items if note.style == OWN and len(note.prompt) <= REWORDED]
    if given and "paraphrase" in args.styles:
        items += paraphrases(model, tokenizer, given, seed)
    chunks = day.texts()
    if items and all(chunk.reference for chunk in chunks):
        return items
    try:
        made = (args.styles, args.questions_per_span, seed, args.question_writer)
        return items + write_examples(model, tokenizer, chunks, *made)
    except NothingToAskError:
        if not items:
            raise
        return items


def general_items(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    bank: ExpertBank,
    general_prompts: Sequence[str],
    args: KnowledgeSeedingConfig,
) -> list[SyntheticExample]:
    """Let the unslept model reply greedily to some of the general prompts; empty replies are left out."""
    rng = random.Random(args.seed)  # which ones is part of the data
    prompts = rng.sample(general_prompts, min(args.general_items, len(general_prompts)))
    with bank.view(()):
        ids = [chat_ids(tokenizer, prompt) for prompt in prompts]
        rows = generate(model, tokenizer, ids, args.general_tokens, description="general prompts")
    replies = [decode(tokenizer, row) for row in rows]
    return [SyntheticExample(p, r, "", "general") for p, r in zip(prompts, replies, strict=True) if r.strip()]


def plan_of(args: KnowledgeSeedingConfig, day: Day, items: Sequence[SyntheticExample], kept_back: int, covered: float) -> str:
    """Say in a few words what lies ahead tonight: numbers of items, steps and tokens.

    Args:
        args: batches and steps of the night.
        day: what was read.
        items: all that the night trains on.
        kept_back: number of items that are asked, not learned.
        covered: share of the sentences that some item answers, from 0 to 1.
    """
    new, *others = ([item for item in items if item.role == role] for role in ROLES)
    numbers = [range(len(group)) for group in others]
    size, share = args.per_device_train_batch_size, args.general_share
    batches = BatchPlan(range(len(new)), numbers, size, share, 1, 0, 0, args.world_size)
    accumulated = args.gradient_accumulation_steps
    steps = args.max_steps if args.max_steps > 0 else batches.steps_of(args.num_train_epochs, accumulated, args.min_steps)
    return plan_text(
        documents=day.size.documents,
        words=day.size.words,
        items=Counter(item.style for item in new),
        steps=steps,
        seen=steps * accumulated * batches.n_new,
        kept_back=kept_back,
        beside=sum(map(len, others)),
        coverage=covered,
    )
