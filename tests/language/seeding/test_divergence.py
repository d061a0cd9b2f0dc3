"""The chunked divergences equal the plain ones on full logits, and keep nothing of the size of the vocabulary."""

import gc
import warnings

import pytest
import torch
from tiny import FAMILIES, tiny_batch, tiny_model
from torch.nn import functional as F

from sleepkit.errors import SleepkitError
from sleepkit.language.seeding.divergence import (
    DIVERGENCES,
    OutputHead,
    TeacherTargets,
    divergence_of_log_probs,
    token_divergence,
    token_log_probs,
    token_scores,
)

N, D, VOCAB, K = 13, 8, 37, 5
KINDS = [("forward_kl", 0.5), ("reverse_kl", 0.5), ("jsd", 0.3), ("jsd", 0.5)]
HEADS = {
    "plain": {},
    "bias": {"bias": torch.linspace(-1, 1, VOCAB)},
    "softcap": {"softcap": 2.0},
    "all": {"bias": torch.linspace(-1, 1, VOCAB), "softcap": 3.0, "scale": 0.7},
}


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def output_head(name="plain", d=D, vocab=VOCAB):
    return OutputHead(weight=normal(vocab, d, seed=3), **HEADS[name])


def reference_logits(hidden, head):
    logits = hidden @ head.weight.T
    logits = (logits + (0 if head.bias is None else head.bias)) * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def reference(student, teacher, kind, beta):
    """From probabilities, with torch's own KL; arguments are (n, classes) log-probabilities."""

    def kl(p, q):
        return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)

    if kind == "forward_kl":
        return kl(teacher, student)
    if kind == "reverse_kl":
        return kl(student, teacher)
    mixture = (beta * teacher.exp() + (1 - beta) * student.exp()).log()
    return beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)


def classes(log_probs, indices):
    kept = log_probs.gather(1, indices)
    return torch.cat([kept, (1 - kept.exp().sum(-1, keepdim=True)).log()], dim=-1)


def value_and_gradient(function, hidden):
    leaf = hidden.clone().requires_grad_()
    value = function(leaf)
    (gradient,) = torch.autograd.grad((value * torch.linspace(-1, 2, len(value))).sum(), leaf)
    return value.detach(), gradient


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
@pytest.mark.parametrize("head_name", HEADS)
@pytest.mark.parametrize("top_k", [0, K])
@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_equals_the_plain_divergence(kind, beta, top_k, head_name, chunk_size):
    head = output_head(head_name)
    student, teacher = normal(N, D), normal(N, D, seed=1)
    targets = TeacherTargets.from_hidden(teacher, head, top_k, chunk_size)
    assert set(targets.tensors()) == ({"log_probs", "indices"} if top_k else {"hidden"})

    def plain(hidden):
        own, other = (F.log_softmax(reference_logits(h, head), dim=-1) for h in (hidden, teacher))
        if top_k:
            own, other = classes(own, targets.indices), classes(other, targets.indices)
        return reference(own, other, kind, beta)

    def chunked(hidden):
        return token_divergence(hidden, head, targets, kind, beta, chunk_size)

    assert chunked(student).shape == (N,) and (chunked(student) >= 0).all()
    assert_same(value_and_gradient(chunked, student), value_and_gradient(plain, student))


@pytest.mark.parametrize("top_k", [0, K])
@pytest.mark.parametrize(("kind", "beta"), KINDS)
def test_nothing_to_learn_from_oneself(kind, beta, top_k):
    head, hidden = output_head("all"), normal(N, D)
    targets = TeacherTargets.from_hidden(hidden, head, top_k)
    value, gradient = value_and_gradient(lambda h: token_divergence(h, head, targets, kind, beta), hidden)
    assert value.abs().max() < 1e-6 and gradient.abs().max() < 1e-6


@pytest.mark.parametrize("chunk_size", [1, 7, 1000])
@pytest.mark.parametrize("head_name", HEADS)
def test_token_log_probs(head_name, chunk_size):
    head, hidden = output_head(head_name), normal(N, D)
    tokens = torch.arange(N) * 2

    def plain(h):
        return F.log_softmax(reference_logits(h, head), dim=-1)[torch.arange(N), tokens]

    def chunked(h):
        return token_log_probs(h, head, tokens, chunk_size)

    assert_same(value_and_gradient(chunked, hidden), value_and_gradient(plain, hidden))
    logits = reference_logits(hidden, head)
    tokens[::2] = logits.argmax(-1)[::2]
    found, likeliest = token_scores(hidden, head, tokens, chunk_size)
    torch.testing.assert_close(found, plain(hidden))
    assert torch.equal(likeliest, tokens == logits.argmax(-1)) and likeliest[::2].all() and not likeliest.all()


@pytest.mark.parametrize(("beta", "kind"), [(0.0, "forward_kl"), (0.5, "jsd"), (1.0, "reverse_kl")])
def test_equals_trl(beta, kind):
    warnings.simplefilter("ignore")
    from trl.trainer.distillation_trainer import _chunked_divergence_loss

    head = output_head("all")
    student, teacher = normal(2, N, D), normal(2, N, D, seed=1)
    mask = (torch.arange(2 * N).view(2, N) % 3 > 0).long()
    kept = mask.bool()

    def trl(hidden):
        shared = {"bias": head.bias, "scale": head.scale, "cap": head.softcap}
        return _chunked_divergence_loss(
            hidden, teacher, head.weight, head.weight, mask, beta,
            student_lm_head_bias=shared["bias"], teacher_lm_head_bias=shared["bias"],
            student_logit_scale=shared["scale"], teacher_logit_scale=shared["scale"],
            student_final_logit_softcapping=shared["cap"], teacher_final_logit_softcapping=shared["cap"],
        )[0]  # fmt: skip

    def ours(hidden):
        targets = TeacherTargets.from_hidden(teacher[kept], head)
        return token_divergence(hidden[kept], head, targets, kind, beta, chunk_size=4).mean()

    results = []
    for loss in (trl, ours):
        leaf = student.clone().requires_grad_()
        value = loss(leaf)
        results.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
    assert_same(*results)


@pytest.mark.parametrize("top_k", [0, K])
def test_no_chunk_of_logits_outlives_its_turn(top_k):
    vocab, chunk_size = 5003, 4  # an odd number, so that a tensor of this width is one of logits
    head = output_head(d=D, vocab=vocab)
    targets = TeacherTargets.from_hidden(normal(N, D, seed=1), head, top_k, chunk_size)
    widest = 0

    class Watched(OutputHead):
        def __call__(self, hidden):
            nonlocal widest
            widest = max(widest, len(hidden))
            return super().__call__(hidden)

    watched = Watched(weight=head.weight)
    leaf = normal(N, D).requires_grad_()
    value = token_divergence(leaf, watched, targets, "jsd", 0.5, chunk_size)
    value = value + token_log_probs(leaf, watched, torch.arange(N), chunk_size)
    saved = [tuple(tensor.shape) for node, _ in value.grad_fn.next_functions for tensor in node.saved_tensors]
    assert saved == [(N, D), (N, D)]
    assert widest == (0 if top_k else chunk_size)  # of a few classes no logits are made but in the one buffer
    gc.collect()
    alive = [tuple(t.shape) for t in gc.get_objects() if type(t) is torch.Tensor and t.ndim == 2 and t.shape[1] == vocab]
    assert alive == []
    value.sum().backward()
    assert leaf.grad.shape == (N, D)


def test_without_gradient_nothing_is_saved():
    head = output_head()
    targets = TeacherTargets.from_hidden(normal(N, D, seed=1), head)
    assert token_divergence(normal(N, D), head, targets).grad_fn is None
    with torch.no_grad():
        assert not token_divergence(normal(N, D).requires_grad_(), head, targets).requires_grad


def test_no_tokens_at_all():
    head = output_head()
    targets = TeacherTargets.from_hidden(normal(0, D), head)
    empty = torch.zeros(0, D, requires_grad=True)
    value = token_divergence(empty, head, targets)
    assert value.shape == (0,)
    value.sum().backward()
    assert empty.grad.shape == (0, D)


def test_bf16_hidden_states_with_fp32_sums():
    head = OutputHead(weight=normal(VOCAB, D, seed=3).bfloat16())
    hidden = normal(N, D).bfloat16().requires_grad_()
    value = token_divergence(hidden, head, TeacherTargets.from_hidden(normal(N, D, seed=1).bfloat16(), head))
    value.sum().backward()
    assert value.dtype == torch.float32 and hidden.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("top_k", [0, K])
def test_targets_slice_and_join(top_k):
    targets = TeacherTargets.from_hidden(normal(N, D), output_head(), top_k)
    again = TeacherTargets.cat([targets[slice(0, 4)], targets[slice(4, N)]])
    assert targets.tensors().keys() == again.tensors().keys()
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in targets.tensors().items())


@pytest.mark.parametrize(("family", "options"), [*((f, {}) for f in FAMILIES), ("gemma3_text", {"final_logit_softcapping": 3.0})])
def test_head_of_a_model_gives_its_logits(family, options):
    model, x = tiny_model(family, **options), tiny_batch()
    with torch.no_grad():
        hidden = model.base_model(x).last_hidden_state
        torch.testing.assert_close(OutputHead.of(model)(hidden), model(x).logits, atol=1e-5, rtol=1e-5)


def test_errors():
    some = normal(N, VOCAB).log_softmax(-1)
    with pytest.raises(SleepkitError, match=f"'kl'.*{', '.join(DIVERGENCES)}"):
        divergence_of_log_probs(some, some, "kl")
    for beta in (0.0, 1.0):
        with pytest.raises(SleepkitError, match=f"beta is {beta}"):
            divergence_of_log_probs(some, some, "jsd", beta)
    model = tiny_model()
    model.get_output_embeddings = lambda: None
    with pytest.raises(SleepkitError, match="LlamaForCausalLM has no output embeddings"):
        OutputHead.of(model)


@pytest.mark.parametrize("chunk_size", [1, 5, 100])
@pytest.mark.parametrize("weight", [0.3, 1.0])
def test_targets_lean_to_the_worked_reply_by_its_weight(weight, chunk_size):
    """(1 - w) teacher + w onehot, over the full vocabulary and as top-k of all classes; joined with plain targets too."""
    head, hidden, student = output_head("all"), normal(N, D, seed=1), normal(N, D, seed=2)
    tokens = torch.arange(N) * 2
    teacher = F.softmax(reference_logits(hidden, head), -1)
    target = ((1 - weight) * teacher + weight * F.one_hot(tokens, VOCAB)).clamp(min=1e-30).log()
    log_student = F.log_softmax(reference_logits(student, head), -1)
    expected = reference(log_student, target, "forward_kl", 0.5)
    full = TeacherTargets.from_hidden(hidden, head, 0, chunk_size, tokens, weight)
    torch.testing.assert_close(token_divergence(student, head, full, chunk_size=chunk_size), expected, rtol=1e-4, atol=1e-5)
    kept = TeacherTargets.from_hidden(hidden, head, K, chunk_size, tokens, weight)
    assert (kept.indices[:, 0] == tokens).all() or weight < 0.5
    torch.testing.assert_close(kept.log_probs, target.topk(K, -1).values, rtol=1e-4, atol=1e-5)
    plain = TeacherTargets.from_hidden(hidden, head)
    joined = token_divergence(torch.cat([student, student]), head, TeacherTargets.cat([full, plain]), chunk_size=chunk_size)
    without = reference(log_student, teacher.log(), "forward_kl", 0.5)
    torch.testing.assert_close(joined, torch.cat([expected, without]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("top_k", [0, 4])
def test_targets_stay_on_the_device_of_the_model(top_k):
    """Weights of worked replies come from the CPU, states from wherever the model is; "meta" stands for a GPU."""
    hidden, head = torch.zeros(6, 8, device="meta"), OutputHead(torch.zeros(11, 8, device="meta"))
    tokens = torch.zeros(6, dtype=torch.int64, device="meta")
    mixed = TeacherTargets.from_hidden(hidden, head, top_k, 4, tokens, torch.tensor([0.7] * 6))
    plain = TeacherTargets.from_hidden(hidden, head, top_k, 4, tokens, torch.zeros(6))
    joined = TeacherTargets.cat([mixed, plain])
    assert {tensor.device.type for tensor in joined.tensors().values()} == {"meta"}
    found = token_divergence(torch.zeros(12, 8, device="meta", requires_grad=True), head, joined, chunk_size=5)
    assert found.device.type == "meta" and found.shape == (12,)
