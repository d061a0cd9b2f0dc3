"""Batched generation with a causal LM that is the same on any number of ranks, and log-probabilities of replies.

Prompts are sorted by length and decoded in batches, left-padded (batches.py).  A long beginning that all prompts share (worked
examples) is run once and its key-value cache is reused for every batch; a prompt that is sampled from many times is read once
in a batch; both only where all layers are attention to all tokens.  With several processes each takes every ``world``-th
prompt and the results are gathered, so that every rank returns the whole list; each rank runs the same number of batches,
which ZeRO-3 needs.  Sampling draws from a seed per call and rank, and leaves the global generator alone.

Left out: serving engines.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import DynamicCache, LogitsProcessorList, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList

from sleepkit.errors import SleepkitError
from sleepkit.language.generation.batches import batches_of, pads_exactly
from sleepkit.language.generation.cache import growing_cache
from sleepkit.language.generation.prompts import PromptFormat, until
from sleepkit.language.generation.sampling import NucleusSampler
from sleepkit.language.models.decoder import reach
from sleepkit.reporting.live import progress
from sleepkit.utils.seeds import derive_seed

if TYPE_CHECKING:
    from transformers.generation.streamers import BaseStreamer

MIN_SHARED_PREFIX = 32
CACHED_AT_ONCE = 65536  # with what it shares, of which each row has a copy
TOKENS_AT_ONCE = 8192  # in one batch, without what it shares: attention over long rows needs memory by the square


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
    state = PartialState()
    mine = range(state.process_index, len(prompts), state.num_processes)
    prefix, cache = _shared_prefix(model, prompts) if len(prompts) > 2 else ([], None)
    longest = max(map(len, prompts)) - len(prefix) + max_new_tokens
    size = max(1, min(batch_size, TOKENS_AT_ONCE // longest, CACHED_AT_ONCE // (len(prefix) + longest)))
    lengths = list(map(len, prompts))
    batches = batches_of(lengths, size, state.process_index, state.num_processes, of_one_length=not pads_exactly(model))
    prompts_of = PromptFormat.of(tokenizer)
    ends = {*stops_of(model), *prompts_of.stop_ids, tokenizer.pad_token_id} - {None}
    stops = (*prompts_of.stop_strings, *stop)
    options: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": sorted(ends),
    }
    options.update(do_sample=False, temperature=None, top_p=None, top_k=None, streamer=streamer)
    if temperature > 0 and top_p < 1:
        options["logits_processor"] = LogitsProcessorList([NucleusSampler(temperature, top_p)])
    elif temperature > 0:
        options.update(do_sample=True, temperature=temperature, top_p=1.0, top_k=0)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    done: dict[int, list[int]] = {}
    rng = torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
    with rng, progress.phase(description, len(mine)) as step:
        torch.manual_seed(derive_seed(seed, "rank", state.process_index))
        for batch in batches:
            rows = [tuple(prompts[i][len(prefix) :]) for i in batch]
            kinds = list(dict.fromkeys(rows))
            width = max(map(len, kinds))
            pad = tokenizer.pad_token_id
            ids = torch.tensor([[*prefix, *[pad] * (width - len(row)), *row] for row in kinds], device=device)
            mask = torch.tensor([[1] * len(prefix) + [0] * (width - len(row)) + [1] * len(row) for row in kinds], device=device)
            past = growing_cache(model)
            if cache is not None:
                past = copy.deepcopy(cache)
                past.batch_repeat_interleave(len(kinds))
            if len(kinds) < len(rows):
                copies = torch.tensor([kinds.index(row) for row in rows], device=device)
                if width > 1 and past is not None and _caches_exactly(model):
                    _read(model, ids[:, :-1], mask[:, :-1], past)
                if past is not None and past.get_seq_length():
                    past.batch_select_indices(copies)
                ids, mask = ids[copies], mask[copies]
            if stops:
                options["stopping_criteria"] = StoppingCriteriaList([_TextStop(tokenizer, stops, ids.shape[1])])
            with _contiguous_head(model), _numbers_or_one_line():
                output = model.generate(  # type: ignore[operator]
                    input_ids=ids, attention_mask=mask, past_key_values=past, synced_gpus=is_zero3(), **options
                )
            for i, tokens in zip(batch, output[:, ids.shape[1] :].tolist(), strict=True):
                end = next((k for k, token in enumerate(tokens) if token in ends), len(tokens))
                done[i] = _until_text(tokenizer, tokens[:end], stops)
            step(len(batch))
    model.train(was_training)
    if state.num_processes > 1:
        done = {i: tokens for part in gather_object([done]) for i, tokens in part.items()}
    return [done[i] for i in range(len(prompts))]


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
    found: dict[int, torch.Tensor] = {}
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i][0]) + len(pairs[i][1]))
    device = next(model.parameters()).device
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        sequences = [[*pairs[i][0], *pairs[i][1]] for i in batch]
        width = max(map(len, sequences))
        ids = torch.tensor([seq + [tokenizer.pad_token_id] * (width - len(seq)) for seq in sequences], device=device)
        mask = torch.tensor([[1] * len(seq) + [0] * (width - len(seq)) for seq in sequences], device=device)
        longest = max(width - len(pairs[i][0]) for i in batch) + 1
        with _contiguous_head(model):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=longest).logits
        for row, i in enumerate(batch):
            context, reply = pairs[i]
            first = len(context) - 1 - (width - longest)
            log_probs = torch.log_softmax(logits[row, first : first + len(reply)].float(), dim=-1)
            found[i] = log_probs.gather(1, torch.tensor(reply, device=device)[:, None])[:, 0]
    return [found[i] for i in range(len(pairs))]


class _TextStop(StoppingCriteria):
    """Ends a row when one of some texts stands in what was generated, whatever tokens it is made of.

    Args:
        stops: the texts.
        start: tokens of the prompt.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str], start: int) -> None:
        self.tokenizer, self.stops, self.start = tokenizer, stops, start
        self.width = max(map(len, stops)) + 1  # tokens that may hold the longest of them

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Any:
        """Return which rows end, ``(rows,)``."""
        last = input_ids[:, max(self.start, input_ids.shape[1] - self.width) :]
        texts = self.tokenizer.batch_decode(last)
        return torch.tensor([any(stop in text for stop in self.stops) for text in texts], device=input_ids.device)


@contextmanager
def _numbers_or_one_line() -> Iterator[None]:
    """Say in one line that a model's logits are no numbers, where torch would draw tokens from them."""
    try:
        yield
    except RuntimeError as error:
        if "probability tensor contains" not in str(error):
            raise
        raise SleepkitError(
            "the model's logits are not finite; its weights or its config.json are damaged, or need another dtype"
        ) from error


def _until_text(tokenizer: PreTrainedTokenizerBase, tokens: list[int], stops: Sequence[str]) -> list[int]:
    """The tokens before the first of some texts; a token that holds both is cut."""
    text = str(tokenizer.decode(tokens))
    said = until(text, stops)
    if said == text:
        return tokens
    kept = next(k for k in range(len(tokens), -1, -1) if said.startswith(before := str(tokenizer.decode(tokens[:k]))))
    return [*tokens[:kept], *text_ids(tokenizer, said[len(before) :])]


def stops_of(model: nn.Module) -> list[int]:
    """Tokens at which the generation configuration of a model stops."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return [] if ends is None else [ends] if isinstance(ends, int) else list(ends)


@contextmanager
def _contiguous_head(model: nn.Module) -> Iterator[None]:
    """Give the output head contiguous hidden states inside the block.

    Of the last tokens of a batch, a strided view, `torch.matmul` makes a batched product with a copy of a frozen head for
    each row: 32 copies of SmolLM2's took 10 seconds and 1.8 GB on one core.
    """
    head = model.get_output_embeddings()  # type: ignore[operator]
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    try:
        yield
    finally:
        handle.remove()


def _shared_prefix(model: nn.Module, prompts: Sequence[Sequence[int]]) -> tuple[list[int], Any]:
    """The tokens that all prompts begin with, and their key-value cache, where that is worth it and exact."""
    prefix = list(os.path.commonprefix([list(prompt[:-1]) for prompt in prompts]))
    if len(prefix) < MIN_SHARED_PREFIX or not _caches_exactly(model):
        return [], None
    device = next(model.parameters()).device
    cache = growing_cache(model)
    assert cache is not None  # all layers are attention
    ids = torch.tensor([prefix], device=device)
    _read(model, ids, torch.ones_like(ids), cache)
    return prefix, cache


def _caches_exactly(model: nn.Module) -> bool:
    """Whether tokens may be read before `generate` is called, as often as this rank needs it: where all layers keep keys and
    values of each token, and nothing else."""
    return reach(model) == math.inf and not is_zero3()


def _read(model: nn.Module, ids: Tensor, mask: Tensor, cache: DynamicCache) -> None:
    """Add the keys and values of left-padded tokens ``(rows, time)`` to a cache that holds the first of them."""
    known = cache.get_seq_length()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, known:]
    options: dict[str, Any] = {"use_cache": True, "logits_to_keep": 1}
    with _contiguous_head(model):
        model(ids[:, known:], attention_mask=mask, position_ids=positions, past_key_values=cache, **options)


def is_zero3() -> bool:
    """True if DeepSpeed's ZeRO-3 splits the weights over the ranks."""
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    return bool(is_deepspeed_zero3_enabled())
