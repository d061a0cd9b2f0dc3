"""Prompts as files that Stable Diffusion pipelines load."""

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from tiny_painter import save_tiny_generator

from sleepkit.vision.dream2learn.painter import DreamPainter
from sleepkit.vision.dream2learn.soft_prompt import Dream, initial_vectors, rms, save_prompt


def test_a_pipeline_loads_a_prompt_and_reads_it_as_we_do(tmp_path):
    folder = save_tiny_generator(tmp_path / "generator")
    painter = DreamPainter(folder)
    vectors = initial_vectors(painter.table, 3, 7)
    save_prompt(tmp_path / "dream-3.safetensors", "<dream-3>", vectors)
    assert torch.equal(load_file(tmp_path / "dream-3.safetensors")["<dream-3>"], vectors)
    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipe.load_textual_inversion(str(tmp_path / "dream-3.safetensors"))
    theirs, _ = pipe.encode_prompt("<dream-3>", "cpu", 1, False)
    torch.testing.assert_close(theirs, painter.embed(vectors[None]))
    pipe.set_progress_bar_config(disable=True)
    assert pipe("<dream-3>", num_inference_steps=1, guidance_scale=1.0, output_type="np").images.shape == (1, 16, 16, 1)


def test_start_and_scale():
    table = torch.randn(500, 16, generator=torch.Generator().manual_seed(0)) + 3
    one = initial_vectors(table, 4, 0)
    assert torch.equal(one, initial_vectors(table, 4, 0)) and not torch.equal(one, initial_vectors(table, 4, 1))
    assert rms(table) == pytest.approx(10**0.5, rel=0.02) and (one - 3).std().item() == pytest.approx(10**0.5 / 2, rel=0.3)


def test_a_dream_as_tensors():
    dream = Dream(1002, 3, 1, 2, 7, torch.rand(2, 4))
    parts = {name.removeprefix("1002."): values for name, values in dream.to_tensors().items()}
    again = Dream.from_tensors(1002, parts)
    assert (again.number, again.target, again.source, again.night, again.stop) == (1002, 3, 1, 2, 7)
    assert torch.equal(again.vectors, dream.vectors)
