"""Batched generation with a causal LM that is the same on any number of processes, and log-probabilities of replies.

Prompts that begin alike are put side by side and dealt out to the processes, so that each has about as much to read and write
(batches.py); the results are gathered, so that every process returns the whole list.  What is drawn of a prompt is drawn by its
own seed (sampling.py), whatever it stands beside.  How a process decodes its prompts: decoding.py.  Under ZeRO-3 each runs the
same number of batches.

Where the model is its bare base, a vLLM server may generate in its place (vllm_server.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from sleepkit.errors import SleepkitError
from sleepkit.language.generation.batches import Room, batches, costs_of, in_order, room_of
from sleepkit.language.generation.decoding import Decoding, contiguous_head, continued, passes_of, stops_of
from sleepkit.language.generation.prompts import PromptFormat
from sleepkit.language.generation.vllm_server import server_of
from sleepkit.language.models.zero3 import is_zero3, split_passes
from sleepkit.reporting.live import progress
from sleepkit.utils.ranks import main_finds, shares, split
from sleepkit.utils.seeds import derive_seed

if TYPE_CHECKING:
    from transformers.generation.streamers import BaseStreamer

__all__ = [
    "chat_ids",
    "confidences",
    "decode",
    "generate",
    "raw_ids",
    "reply_ids",
    "reply_log_probs",
    "reply_texts",
    "require_window",
    "stops_of",
    "text_ids",
    "window_of",
]


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: str | Sequence[Mapping[str, str]]) -> list[int]:
    """Token ids of a conversation that waits for the assistant's reply; a string is one user message."""
    return PromptFormat.of(tokenizer).prompt(messages)


def reply_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a whole reply behind `chat_ids`, with the end of the turn."""
    prompts = PromptFormat.of(tokenizer)
    return [*prompts.reply(text), *prompts.end]


def raw_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text to go on from, outside any chat: with what the tokenizer puts before a text (BOS)."""
    prompts = PromptFormat.of(tokenizer)
    return [*prompts.beginning, *prompts.text(text)]


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a part of a text, without special tokens."""
    return PromptFormat.of(tokenizer).text(text)


def decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """Stripped text of what was generated: without special tokens, and without what the model thought before its reply."""
    return PromptFormat.of(tokenizer).said(ids)


def window_of(model: nn.Module) -> float:
    """Tokens that the model's context window holds; infinite where its configuration names no limit."""
    window = getattr(model.config.get_text_config(), "max_position_embeddings", None)  # type: ignore[union-attr,operator]
    return math.inf if window is None else window


def require_window(model: nn.Module, length: int, what: str) -> None:
    """Check that ``length`` tokens fit the model's context window; ``what`` needs them, for the message.

    Raises:
        SleepkitError: they do not.
    """
    window = window_of(model)
    if length > window:
        raise SleepkitError(
            f"{what} needs {length} tokens, the model's window holds {window}; "
            "lower `context_max_tokens` so that documents are split, or use a model with a longer window"
        )


def require_room(model: nn.Module, context: int, answer: int) -> None:
    """Check that a chunk of ``context`` tokens fits the window with an answer; raise `SleepkitError` where it does not."""
    require_window(model, context + answer, f"a chunk of {context} tokens with an answer of {answer}")


@torch.no_grad()
def generate(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 48,
    batch_size: int = 32,
    temperature: float = 0.0,
    top_p: float = 0.95,
    seed: int = 0,
    stop: Sequence[str] = (),
    description: str | None = None,
    streamer: BaseStreamer | None = None,
) -> list[list[int]]:
    """Continue each prompt; returns the new token ids without end-of-turn and padding, in the order of ``prompts``.

    Args:
        batch_size: rows at once, fewer where prompts are long.
        temperature: 0 decodes greedily.
        stop: further texts that end a continuation, in whatever tokens they stand, and are no part of it (a line break, say).
        description: what progress calls it; not shown without it.
        streamer: takes the tokens of a single prompt as they come.
    """
    if not prompts:
        return []
    require_window(model, max(map(len, prompts)) + max_new_tokens, "a prompt with its reply")
    how = Decoding(max_new_tokens, temperature, top_p, stop, streamer)
    groups = in_order(prompts)
    order = [i for group in groups for i in group]
    dealt = [[order[k] for k in share] for share in shares(costs_of(prompts, groups, max_new_tokens))]
    seeds = [derive_seed(seed, "row", i) for i in range(len(prompts))]
    server = server_of(model) if streamer is None else None
    if server is not None:

        def asked(mine: Sequence[int]) -> list[list[int]]:
            with progress.phase(description, len(mine)) as step:
                given = [prompts[i] for i in mine], [seeds[i] for i in mine]
                return server.continued(model, tokenizer, *given, how, step)

        return split(dealt, asked)
    room = _room(model, batch_size)

    def work(passes: list[list[int]]) -> dict[int, list[int]]:
        with progress.phase(description, sum(map(len, passes))) as step:
            return continued(model, tokenizer, prompts, seeds, how, passes, step)

    return split_passes(dealt, lambda share: passes_of(model, prompts, share, max_new_tokens, room), work)


def reply_texts(model: nn.Module, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], **options: Any) -> list[str]:
    """Return greedy replies to single questions, each a chat of its own, as stripped text.

    Args:
        model: that is asked.
        tokenizer: its tokenizer, with a chat template.
        questions: one user turn each.
        options: more, as `generate` takes it, such as ``max_new_tokens``.
    """
    tokens = generate(model, tokenizer, [chat_ids(tokenizer, question) for question in questions], **options)
    return [decode(tokenizer, row) for row in tokens]


def confidences(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], max_new_tokens: int = 48
) -> list[float]:
    """Return how sure a model is of its greedy reply to each question: the reply's log-probability in nats, its end included.

    Args:
        model: that is asked.
        tokenizer: its tokenizer, with a chat template.
        questions: one user turn each.
        max_new_tokens: of a reply.
    """
    prompts = [chat_ids(tokenizer, question) for question in questions]
    end = PromptFormat.of(tokenizer).end
    replies = [[*row, *end] for row in generate(model, tokenizer, prompts, max_new_tokens)]
    return [row.sum().item() for row in reply_log_probs(model, tokenizer, list(zip(prompts, replies, strict=True)))]


@torch.no_grad()
def reply_log_probs(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[tuple[list[int], list[int]]],
    batch_size: int = 32,
) -> list[torch.Tensor]:
    """Return the log-probability, in nats, of each token of given replies.

    Args:
        model: that is read with.
        tokenizer: pads.
        pairs: token ids of a context and of the reply that follows it.
        batch_size: pairs at once.

    Returns:
        A tensor ``(len(reply),)`` for each pair, in their order.
    """
    lengths = [len(context) + len(reply) for context, reply in pairs]
    order = sorted(range(len(pairs)), key=lengths.__getitem__)
    dealt = [[order[k] for k in share] for share in shares([lengths[i] for i in order])]
    room = _room(model, batch_size, max((len(reply) for _, reply in pairs), default=1))

    def work(passes: list[list[int]]) -> dict[int, Tensor]:
        return {i: row for batch in passes for i, row in zip(batch, _log_probs(model, tokenizer, pairs, batch), strict=True)}

    def cut(share: Sequence[int]) -> list[list[int]]:
        return [[share[k] for k in batch] for batch in batches([lengths[i] for i in share], 0, room, False)]

    return split_passes(dealt, cut, work) if pairs else []


def _room(model: nn.Module, rows: int, places: int = 1) -> Room:
    """`room_of`; the same on all processes where all have to run the same passes."""
    return main_finds(lambda: room_of(model, rows, places)) if is_zero3() else room_of(model, rows, places)


def _log_probs(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[list[int], list[int]]], batch: Sequence[int]
) -> list[Tensor]:
    """Log-probabilities of the replies of some pairs, which are read together."""
    device = next(model.parameters()).device
    sequences = [[*pairs[i][0], *pairs[i][1]] for i in batch]
    width = max(map(len, sequences))
    ids = torch.tensor([seq + [tokenizer.pad_token_id] * (width - len(seq)) for seq in sequences], device=device)
    mask = torch.tensor([[1] * len(seq) + [0] * (width - len(seq)) for seq in sequences], device=device)
    longest = max(width - len(pairs[i][0]) for i in batch) + 1
    with contiguous_head(model):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=longest).logits
    found = []
    for row, i in enumerate(batch):
        context, reply = pairs[i]
        first = len(context) - 1 - (width - longest)
        log_probs = torch.log_softmax(logits[row, first : first + len(reply)].float(), dim=-1)
        found.append(log_probs.gather(1, torch.tensor(reply, device=device)[:, None])[:, 0].cpu())
    return found
