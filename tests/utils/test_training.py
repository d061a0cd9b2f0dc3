"""After a training the model is the plain one again, in any precision, and what is not finite is named."""

import pytest
import torch
from tiny import tiny_batch, tiny_model
from tiny_night import tiny_grown, tiny_trainer

from sleepkit.errors import SleepkitError
from sleepkit.language.experts.bank import ExpertBank
from sleepkit.utils.training import require_finite, without_autocast

X = tiny_batch()


def test_autocast_goes_with_the_night(tmp_path):
    trainer = tiny_trainer(tmp_path, bf16=True)
    model = trainer.lm
    before = type(model).forward
    trainer.run()
    assert "forward" not in vars(model) and "_original_forward" not in vars(model) and model.forward.__func__ is before
    assert not model.training  # as it came
    with torch.no_grad():
        logits = model(X).logits
        again = ExpertBank.of(model)
        copy = tiny_grown()[0]
        ExpertBank.of(copy).load_state_dict(again.state_dict(), again.active)
        assert logits.dtype == torch.float32 and torch.equal(logits, copy(X).logits)


def test_a_second_night_in_bfloat16_on_a_cpu(tmp_path):
    trainer = tiny_trainer(tmp_path, bf16=True)
    trainer.run()
    bank = ExpertBank.of(trainer.lm)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for parameter in bank.parameters(bank.active[0]):
            parameter.requires_grad_(True)
        expected = trainer.lm(X).logits
        bank.train_only(None)  # a frozen expert is computed for the tokens that open it alone
        assert (trainer.lm(X).logits - expected).abs().max() < 0.05 * expected.abs().max()
    outcome = tiny_trainer(tmp_path / "second", model=trainer.lm, bf16=True).run()
    assert len(outcome["history"]) == 2


@pytest.mark.parametrize("layers", ["all", "last_half"])
def test_a_grown_model_may_be_cast(layers, tmp_path):
    model = tiny_trainer(tmp_path, layers=layers).lm
    bank = ExpertBank.of(model)
    with torch.no_grad():
        for parameter in bank.parameters(bank.active[0]):
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) / 10)
        expected = model(X).logits
        model.requires_grad_(False)
        assert torch.equal(model(X).logits, expected) or (model(X).logits - expected).abs().max() < 1e-5
        found = model.to(torch.bfloat16)(X).logits
    assert found.dtype == torch.bfloat16 and (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_a_wrapper_that_is_not_accelerate_s_stays():
    model = tiny_model()
    own = lambda *args, **options: "own"  # noqa: E731
    model.forward = own
    without_autocast(model)
    assert model.forward is own
    model._original_forward, model.forward = own, lambda: "wrapped"
    without_autocast(model)
    assert model.forward is own


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e25])
def test_the_tensor_that_is_not_finite_is_named(value):
    tensors = {"good": torch.ones(3), "up": torch.tensor([[0.0, value]])}
    with pytest.raises(SleepkitError, match=r"night 4 has left up at .*lower learning_rate \(it was 0.5\)"):
        require_finite(tensors, "night 4", 0.5)
    require_finite({"good": torch.ones(3), "none": torch.zeros(0), "large": torch.full((4,), 1e18)}, "night 4", 0.5)
