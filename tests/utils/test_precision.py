"""What a device computes in."""

import pytest
import torch

from sleepkit.utils.precision import computes


@pytest.mark.parametrize("native", [True, False])
def test_onednn_knows_what_a_cpu_computes_in(native, monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: native, raising=False)
    assert computes(torch.bfloat16, "cpu") is native
    assert computes(torch.float32, "cpu") and computes(torch.bfloat16, "cuda") and computes(torch.float16, "cuda")


def test_without_onednn_half_precision_is_emulated(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not computes(torch.bfloat16, "cpu") and not computes(torch.float16, torch.device("cpu"))
