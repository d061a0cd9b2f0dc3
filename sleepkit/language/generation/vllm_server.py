"""Continuing prompts by a vLLM server that serves the base model: ``vllm serve BASE``, as TRL's trainers use it.

    connect(model, tokenizer, "http://127.0.0.1:8000")     checks that the server has the same weights
    generate(model, tokenizer, prompts, ...)               asks the server wherever the model is its bare base

Prompts go as token ids, each a request of its own with a seed of its own, many at a time: the server batches them as they
come.  What a server cannot know, experts and adapters, is never asked of it: where some are shown, the model itself generates.

TRL's own client asks for vLLM in the same environment, which pins torch; this one needs httpx alone, so that the server may have
an environment, or a machine, of its own.  Left out: sending weights to the server, and vLLM inside this process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.errors import SleepkitError, first_line
from sleepkit.language.generation.decoding import Decoding, ends_of, stops_at, until_end
from sleepkit.language.generation.prompts import PromptFormat
from sleepkit.language.models.decoder import without_adapter
from sleepkit.utils.ranks import main_finds

if TYPE_CHECKING:
    import httpx

__all__ = ["VllmServer", "connect", "is_served", "server_of"]

AT_ONCE = 64  # requests, as TRL's client sends
SECONDS = 600  # that a request may wait for its turn
APART = 0.1  # nats between the log-probabilities of a token by the same weights, at most; bfloat16 rounds to some hundredths
PROBE = "The first keeper of the lighthouse was"
# vLLM would take what the model's generation_config.json recommends, and ends a reply at texts only where they are decoded.
_PLAIN = {"repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0, "skip_special_tokens": False, "add_special_tokens": False}

_SERVERS: WeakKeyDictionary[nn.Module, VllmServer] = WeakKeyDictionary()


class VllmServer:
    """A running vLLM server.

    Args:
        base_url (`str`): its address, without ``/v1``.

    Raises:
        SleepkitError: it does not answer, or refuses a request.
    """

    def __init__(self, base_url: str) -> None:
        import httpx

        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        self.client = httpx.Client(timeout=SECONDS, limits=limits, trust_env=False)
        self.model = str(self._answer("GET", "/v1/models")["data"][0]["id"])

    def _answer(self, method: str, path: str, **options: Any) -> Any:
        import httpx

        try:
            response: httpx.Response = self.client.request(method, self.base_url + path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise SleepkitError(
                f"no vLLM server answers at {self.base_url} ({first_line(error)}); start it with `vllm serve MODEL`, "
                "set vllm_server_base_url, or leave generation at 'plain'"
            ) from None
        if response.status_code != httpx.codes.OK:
            raise SleepkitError(f"the vLLM server at {self.base_url} refuses a request ({response.status_code}): {response.text}")
        return response.json()

    def completion(self, prompt: Sequence[int], **options: Any) -> dict[str, Any]:
        """The server's choice of a continuation of token ids, with its ``token_ids``."""
        request = {"model": self.model, "prompt": list(prompt), "return_token_ids": True, **options}
        found: dict[str, Any] = self._answer("POST", "/v1/completions", json=request)["choices"][0]
        if found.get("token_ids") is None:
            raise SleepkitError(f"the server at {self.base_url} returns no token ids; use vLLM 0.10.2 or later")
        return found

    def check(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
        """Compare the likeliest next token of a text, and its log-probability, with the model's.

        Raises:
            SleepkitError: they are apart: the server has other weights.
        """
        prompts = PromptFormat.of(tokenizer)
        ids = [*prompts.beginning, *prompts.text(PROBE)]
        choice = main_finds(lambda: self.completion(ids, max_tokens=1, temperature=0.0, logprobs=1, **_PLAIN))
        token, theirs = choice["token_ids"][0], choice["logprobs"]["token_logprobs"][0]
        device = next(model.parameters()).device
        with torch.no_grad():  # on all processes: ZeRO-3 gathers the weights of each layer
            logits = model(input_ids=torch.tensor([ids], device=device)).logits[0, -1].float()
        ours = logits.log_softmax(-1)[token].item() if token < len(logits) else float("-inf")
        if not abs(ours - theirs) <= APART:
            raise SleepkitError(
                f"the vLLM server at {self.base_url} serves {self.model}, which is another model than this one (a token has the "
                f"log-probability {theirs:.2f} there, {ours:.2f} here); serve the same base"
            )

    def continued(
        self,
        model: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        how: Decoding,
        step: Callable[[int], object] = lambda _: None,
    ) -> list[list[int]]:
        """Continue prompts, many at a time, and return the new tokens of each, without end of turn.

        Args:
            model: whose ends of a turn count.
            tokenizer: its tokenizer.
            prompts: token ids.
            seeds: of each prompt, for what is drawn.
            how: they are continued.
            step: is told how many are done.
        """
        ends, stops = ends_of(model, tokenizer), stops_at(tokenizer, how)
        options: dict[str, Any] = {"max_tokens": how.max_new_tokens, "temperature": how.temperature, "top_p": how.top_p, **_PLAIN}
        options |= {"stop_token_ids": ends, "stop": stops}

        def ask(prompt: Sequence[int], seed: int) -> list[int]:
            return until_end(tokenizer, self.completion(prompt, seed=seed, **options)["token_ids"], ends, stops)

        found = []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for row in pool.map(ask, prompts, seeds):
                found.append(row)
                step(1)
        return found


def connect(model: nn.Module, tokenizer: PreTrainedTokenizerBase, base_url: str) -> None:
    """Let a server generate in place of the model, wherever neither experts nor adapters are shown; call it on all processes.

    Args:
        model: whose base the server has.
        tokenizer: its tokenizer.
        base_url: address of the server.

    Raises:
        SleepkitError: it does not answer, or has other weights.
    """
    server = VllmServer(base_url)
    with _hidden_experts(model):
        server.check(model, tokenizer)
    _SERVERS[without_adapter(model)] = server


@contextmanager
def _hidden_experts(model: nn.Module) -> Iterator[None]:
    """Show no experts inside the block, as `ExpertBank.view` does, which stands above this module."""
    shown = {module: module.visible for module in model.modules() if getattr(module, "visible", ())}
    for module in shown:
        module.visible = ()  # type: ignore[assignment]
    try:
        yield
    finally:
        for module, slots in shown.items():
            module.visible = slots


def server_of(model: nn.Module) -> VllmServer | None:
    """The server that generates in place of the model as it is now; None where the model itself has to."""
    server = _SERVERS.get(without_adapter(model))
    return server if server is not None and is_bare(model) else None


def is_served(model: nn.Module) -> bool:
    """Whether a server was connected, which generates where the model is its bare base."""
    return without_adapter(model) in _SERVERS


def is_bare(model: nn.Module) -> bool:
    """Whether neither experts nor an adapter of PEFT take part in what the model says."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return not any(
        bool(getattr(module, "visible", ())) or (isinstance(module, BaseTunerLayer) and not module.disable_adapters)
        for module in model.modules()
    )
