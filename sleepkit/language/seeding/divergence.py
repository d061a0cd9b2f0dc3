"""Divergence between teacher and student over the whole vocabulary, without ever holding the whole logits.

Per token, with teacher ``t`` and student ``s`` over the vocabulary::

    forward_kl   sum_v t (log t - log s)                       (Learning from the teacher's samples; SLEEP, SDFT)
    reverse_kl   sum_v s (log s - log t)
    jsd          b KL(t || m) + (1 - b) KL(s || m),  m = b t + (1 - b) s            (GKD, arXiv 2306.13649, eq. 1)

The student's hidden states ``(n, d)`` are projected ``chunk_size`` tokens at a time; the gradient with respect to the
hidden states is computed in the same sweep and only that, ``(n, d)``, is kept for the backward pass.  This is exact
because each token's divergence depends on its own hidden state alone and the output head is frozen.

The teacher is given in one of two forms:
    hidden states ``(n, d)`` of the same model: the full vocabulary, recomputed per chunk at 1/85 of the memory of logits;
    top-k log-probabilities ``(n, k)`` with the rest as one *tail* class: no teacher projection at all while training.

Ours: the one-sweep gradient for any of the three, and the cached forms.  Left out: heads that are trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sleepkit.errors import SleepkitError

DIVERGENCES = ("forward_kl", "reverse_kl", "jsd")


@dataclass
class OutputHead:
    """The map from hidden states to logits: ``softcap(scale * (h W^T + bias))``."""

    weight: Tensor  # (vocab, d)
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, model: nn.Module) -> OutputHead:
        """Head of a Hugging Face causal LM, with the logit scale and soft cap of its config."""
        layer = model.get_output_embeddings()  # type: ignore[operator]
        if layer is None:
            raise SleepkitError(f"{type(model).__name__} has no output embeddings; use a causal language model")
        config = model.config.get_text_config()  # type: ignore[union-attr,operator]
        scale = getattr(config, "logit_scale", None)
        scaling = getattr(config, "logits_scaling", None)
        return cls(
            weight=layer.weight.detach(),
            bias=layer.bias.detach() if getattr(layer, "bias", None) is not None else None,
            scale=float(scale) if scale is not None else (1.0 / float(scaling) if scaling else 1.0),
            softcap=getattr(config, "final_logit_softcapping", None),
        )

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits in fp32, ``(n, d) -> (n, vocab)``."""
        logits = F.linear(hidden, self.weight.to(hidden.dtype), self.bias).float() * self.scale
        return self.softcap * torch.tanh(logits / self.softcap) if self.softcap else logits


@dataclass
class TeacherTargets:
    """Targets of the teacher for ``n`` tokens: either its hidden states, or its top-k log-probabilities."""

    hidden: Tensor | None = None  # (n, d)
    log_probs: Tensor | None = None  # (n, k)
    indices: Tensor | None = None  # (n, k)
    tokens: Tensor | None = None  # (n,) with hidden: tokens that the target leans to, by `weights`
    weights: Tensor | None = None  # (n,)

    @classmethod
    @torch.no_grad()
    def from_hidden(
        cls,
        hidden: Tensor,
        head: OutputHead,
        top_k: int = 0,
        chunk_size: int = 256,
        tokens: Tensor | None = None,
        token_weight: float | Tensor = 0.0,
    ) -> TeacherTargets:
        """Make targets from the teacher's last hidden states.

        Args:
            hidden: ``(n, d)``.
            head: maps them to logits.
            top_k: likeliest tokens that are kept; 0 keeps the full vocabulary.
            chunk_size: rows of logits that are alive at once.
            tokens: ``(n,)``, of the worked reply.
            token_weight: w, a number or ``(n,)``: the target is ``(1 - w) teacher + w onehot(tokens)``.
        """
        weights = torch.as_tensor(token_weight, dtype=torch.float32)
        mixed = tokens is not None and bool(weights.any())
        weights = weights.to(hidden.device).expand(hidden.shape[0])
        if top_k == 0:
            if not mixed:
                return cls(hidden=hidden.detach().clone())
            return cls(hidden=hidden.detach().clone(), tokens=tokens, weights=weights.clone())
        kept = []
        for start in range(0, max(1, hidden.shape[0]), chunk_size):
            part = slice(start, start + chunk_size)
            log_probs = F.log_softmax(head(hidden[part]), dim=-1)
            if tokens is not None and mixed:
                log_probs = mixed_with_tokens(log_probs, tokens[part], weights[part, None])
            kept.append(log_probs.topk(top_k, dim=-1))
        return cls(log_probs=torch.cat([k.values for k in kept]), indices=torch.cat([k.indices for k in kept]))

    @classmethod
    def cat(cls, targets: list[TeacherTargets]) -> TeacherTargets:
        """Join targets of the same form along the tokens."""

        def joined(name: str) -> Tensor | None:
            parts = [getattr(target, name) for target in targets]
            return None if parts[0] is None else torch.cat(parts)

        targets = [target.leaning() for target in targets] if any(t.tokens is not None for t in targets) else targets
        return cls(**{name: joined(name) for name in ("hidden", "log_probs", "indices", "tokens", "weights")})

    def leaning(self) -> TeacherTargets:
        """Return these targets with `tokens` and `weights` (zero where there were none), so that they can be joined."""
        if self.hidden is None or self.tokens is not None:
            return self
        tokens = torch.zeros(len(self.hidden), dtype=torch.int64, device=self.hidden.device)
        return TeacherTargets(hidden=self.hidden, tokens=tokens, weights=torch.zeros_like(tokens, dtype=torch.float32))

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are there, by name (for safetensors)."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def __getitem__(self, index: slice) -> TeacherTargets:
        return TeacherTargets(**{name: tensor[index] for name, tensor in self.tensors().items()})


def divergence_of_log_probs(teacher: Tensor, student: Tensor, kind: str = "forward_kl", beta: float = 0.5) -> Tensor:
    """Divergence per token of two sets of log-probabilities, ``(n, classes)`` each ``-> (n,)``, in nats."""
    if kind == "forward_kl":
        return (teacher.exp() * (teacher - student)).sum(-1)
    if kind == "reverse_kl":
        return (student.exp() * (student - teacher)).sum(-1)
    if kind != "jsd":
        raise SleepkitError(f"divergence is {kind!r}; use one of {', '.join(DIVERGENCES)}")
    if not 0 < beta < 1:
        raise SleepkitError(f"beta is {beta}; the JSD needs 0 < beta < 1 (use forward_kl or reverse_kl for the ends)")
    mixture = torch.logaddexp(teacher + torch.tensor(beta).log(), student + torch.tensor(1 - beta).log())
    to_teacher = (teacher.exp() * (teacher - mixture)).sum(-1)
    to_student = (student.exp() * (student - mixture)).sum(-1)
    return beta * to_teacher + (1 - beta) * to_student


def mixed_with_tokens(log_probs: Tensor, tokens: Tensor, weight: float | Tensor) -> Tensor:
    """``log((1 - w) p + w onehot(tokens))``, ``(n, classes)`` and ``(n,) -> (n, classes)``; w a number or ``(n, 1)``."""
    onehot = torch.zeros_like(log_probs).scatter_(1, tokens.to(log_probs.device)[:, None], 1.0)
    weight = weight.to(log_probs.device) if isinstance(weight, Tensor) else weight
    return ((1 - weight) * log_probs.exp() + weight * onehot).clamp(min=1e-30).log()


def with_tail(log_probs: Tensor) -> Tensor:
    """Top-k log-probabilities ``(n, k)`` with the log of what is left as class ``k``, ``(n, k + 1)``."""
    rest = (1 - log_probs.exp().sum(-1, keepdim=True)).clamp(min=1e-7)
    return torch.cat([log_probs, rest.log()], dim=-1)


def token_divergence(
    hidden: Tensor,
    head: OutputHead,
    teacher: TeacherTargets,
    kind: str = "forward_kl",
    beta: float = 0.5,
    chunk_size: int = 256,
) -> Tensor:
    """Return the divergence of student and teacher per token, ``(n,)`` in nats, with gradient to ``hidden``.

    Args:
        hidden: last hidden states of the student, ``(n, d)``.
        head: maps hidden states to logits.
        teacher: targets for the same ``n`` tokens.
        kind: one of `DIVERGENCES`.
        beta: weight of the teacher in the mixture of ``jsd``.
        chunk_size: rows of logits that are alive at once.
    """

    if teacher.log_probs is not None and teacher.indices is not None:
        log_teacher = with_tail(teacher.log_probs)

        def of_kept(kept: Tensor, part: slice) -> Tensor:
            return divergence_of_log_probs(log_teacher[part], with_tail(kept), kind, beta)

        return _of_kept(hidden, head, teacher.indices, of_kept, chunk_size)

    def per_token(logits: Tensor, part: slice) -> Tensor:
        target = teacher[part]
        assert target.hidden is not None
        with torch.no_grad():
            log_teacher = F.log_softmax(head(target.hidden), dim=-1)
            if target.tokens is not None and target.weights is not None:
                log_teacher = mixed_with_tokens(log_teacher, target.tokens, target.weights[:, None])
        return divergence_of_log_probs(log_teacher, F.log_softmax(logits, dim=-1), kind, beta)

    return _PerToken.apply(hidden, head, per_token, chunk_size)


def token_log_probs(hidden: Tensor, head: OutputHead, tokens: Tensor, chunk_size: int = 256) -> Tensor:
    """Log-probability of each token, ``(n, d), (n,) -> (n,)``, with gradient to ``hidden``."""
    return _of_kept(hidden, head, tokens[:, None], lambda kept, _: kept[:, 0], chunk_size)


@torch.no_grad()
def token_scores(hidden: Tensor, head: OutputHead, tokens: Tensor, chunk_size: int = 256) -> tuple[Tensor, Tensor]:
    """Log-probability of each token, and whether it is the likeliest one, ``(n, d), (n,) -> (n,), (n,)``; no gradient."""
    found = []
    for part in (slice(start, start + chunk_size) for start in range(0, len(hidden), chunk_size)):
        logits = head(hidden[part])
        chosen = logits.gather(1, tokens[part, None])[:, 0]
        found.append((chosen - logits.logsumexp(-1), chosen >= logits.max(-1).values))
    log_probs, likeliest = (torch.cat(parts) for parts in zip(*found, strict=True))
    return log_probs, likeliest


OfKept = Callable[[Tensor, slice], Tensor]


def _of_kept(hidden: Tensor, head: OutputHead, indices: Tensor, of_kept: OfKept, chunk_size: int) -> Tensor:
    """A scalar of the log-probabilities ``(n, k)`` of some classes of each token, ``-> (n,)``."""
    if head.softcap:

        def per_token(logits: Tensor, part: slice) -> Tensor:
            return of_kept(logits.gather(1, indices[part]) - torch.logsumexp(logits, dim=-1, keepdim=True), part)

        return _PerToken.apply(hidden, head, per_token, chunk_size)
    return _PerKept.apply(hidden, head, indices, of_kept, chunk_size)


class _PerKept(torch.autograd.Function):
    """Do what `_PerToken` does where few classes count: no graph over the vocabulary, and one buffer for all chunks.

    With ``l_k = z_k - logsumexp(z)`` and ``g = df / dl``:  ``df / dz = onehots @ g - softmax(z) * sum(g)``.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: OutputHead, indices: Tensor, of_kept: OfKept, chunk_size: int) -> Tensor:
        weight = head.weight.to(hidden.dtype)  # (vocab, d)
        rows = min(chunk_size, len(hidden))
        logits = hidden.new_empty(rows, len(weight))
        buffer = torch.empty(rows, len(weight), dtype=torch.float32, device=hidden.device)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        values = []
        for start in range(0, len(hidden), chunk_size):
            part = slice(start, min(start + chunk_size, len(hidden)))
            z = buffer[: part.stop - start]
            z.copy_(torch.mm(hidden[part], weight.t(), out=logits[: len(z)]))
            if head.bias is not None:
                z.add_(head.bias)
            if head.scale != 1:
                z.mul_(head.scale)
            kept = z.gather(1, indices[part])
            largest = z.amax(-1, keepdim=True)
            total = z.sub_(largest).exp_().sum(-1, keepdim=True)
            with torch.enable_grad():
                kept = (kept - largest - total.log()).requires_grad_(gradient is not None)
                value = of_kept(kept, part)
                total_value = value.sum()
            values.append(value.detach())
            if gradient is not None:
                (g,) = torch.autograd.grad(total_value, kept)
                z.mul_(-g.sum(-1, keepdim=True) / total).scatter_add_(1, indices[part], g)
                gradient[part] = torch.mm(logits[: len(z)].copy_(z), weight).mul_(head.scale)
        if gradient is not None:
            ctx.save_for_backward(gradient)
        return torch.cat(values) if values else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (grad_outputs[0][:, None].to(gradient.dtype) * gradient, None, None, None, None)


class _PerToken(torch.autograd.Function):
    """A scalar of each token's logits, and its gradient to the hidden state in the same sweep over chunks."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: OutputHead, per_token: Callable[[Tensor, slice], Tensor], chunk_size: int
    ) -> Tensor:
        wants_grad = ctx.needs_input_grad[0]
        values, gradients = [], []
        for start in range(0, hidden.shape[0], chunk_size):
            part = slice(start, min(start + chunk_size, hidden.shape[0]))
            with torch.enable_grad():
                leaf = hidden[part].detach().requires_grad_(wants_grad)
                value = per_token(head(leaf), part)
                if wants_grad:
                    gradients.append(torch.autograd.grad(value.sum(), leaf)[0])
            values.append(value.detach())
        if wants_grad:
            ctx.save_for_backward(torch.cat(gradients) if gradients else torch.zeros_like(hidden))
        return torch.cat(values) if values else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return (grad_outputs[0][:, None].to(gradient.dtype) * gradient, None, None, None)
