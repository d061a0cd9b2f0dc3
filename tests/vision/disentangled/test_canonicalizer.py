"""The canonicalizer: it learns scale and rotation, looks again to more effect, and is saved with its shape."""

import math

import pytest
import torch
from transformers import AutoModel

from sleepkit.errors import SleepkitError
from sleepkit.vision.disentangled.canonicalizer import (
    OUTPUTS,
    RESNET_18,
    Canonicalizer,
    CanonicalizerConfig,
    _squared_error,
    parameters,
    to_matrix,
)
from sleepkit.vision.idsprites.affine import factors_to_matrix, normalize
from sleepkit.vision.idsprites.factors import FactorRanges
from sleepkit.vision.idsprites.renderer import SpriteRenderer

SHAPE = {
    "image_size": 16,
    "widths": [8, 16],
    "hidden_size": 32,
    "refine_widths": [8, 16],
    "refine_hidden_size": 32,
    "refine_size": 12,
}


def tiny(seed=0, **options):
    torch.manual_seed(seed)
    return Canonicalizer(CanonicalizerConfig(**{**SHAPE, **options}))


def sprites(count, start=0, **ranges):
    """Images of one shape, ``(count, 1, 16, 16)``, and their matrices."""
    classes, places = torch.zeros(count, dtype=torch.int64), torch.arange(start, start + count)
    factors, colors = FactorRanges(10**6, **ranges).at(classes, places)
    images = SpriteRenderer(16, channels=1)(classes, factors, colors, places)
    return images, factors_to_matrix(factors).float()


def error(found, matrix):
    return (found[:, :2] - matrix[:, :2]).square().mean().sqrt().item()


@pytest.mark.parametrize("output", OUTPUTS)
def test_parameters_and_matrices_are_inverse(output):
    values = torch.randn(7, OUTPUTS[output])
    torch.testing.assert_close(parameters(to_matrix(values), output), values)
    assert torch.equal(to_matrix(torch.zeros(2, OUTPUTS[output])), torch.eye(3).expand(2, 3, 3))
    factors = torch.tensor([[0.7, 1.0, 0.2, 0.9]])
    torch.testing.assert_close(to_matrix(parameters(factors_to_matrix(factors), output)), factors_to_matrix(factors))


def test_a_network_learns_scale_and_rotation():
    """The digest's first experiment, and that a second look at what the first has straightened is better than the first."""
    model = tiny(refinements=2)
    still = {"position_x": (0.5, 0.5), "position_y": (0.5, 0.5)}
    images, matrix = sprites(512, **still)
    held_out, truth = sprites(64, 512, **still)
    start = {name: values.clone() for name, values in model.named_parameters()}
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    before = error(model(held_out).matrix, truth)
    for step in range(300):
        rows = torch.arange(step * 32, (step + 1) * 32) % 512
        spread = torch.full((32, 1), 0.02 if step % 2 else 0.1)
        loss = model(images[rows], matrix=matrix[rows], noise=torch.randn(32, 4), spread=spread).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(not torch.equal(values, start[name]) for name, values in model.named_parameters())
    with torch.no_grad():
        coarse, found = to_matrix(model.estimator(model.scaled(held_out))), model(held_out).matrix
    assert error(found, truth) < error(coarse, truth) < before / 4 and error(found, truth) < 0.06


def test_a_prediction_does_not_depend_on_the_batch():
    model = tiny().eval()
    images, _ = sprites(9)
    with torch.no_grad():
        together = model(images).matrix
        alone = torch.cat([model(image[None]).matrix for image in images])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
        bytes_in = model((images * 255).round().to(torch.uint8)).matrix
    torch.testing.assert_close(bytes_in, together, atol=0.02, rtol=0)


def test_a_perfect_refiner_undoes_the_error(monkeypatch):
    """Theta M(e)^-1 M(e) = Theta: what is learned is what is then applied."""
    model = tiny(refinements=1)
    images, matrix = sprites(5)
    noise, spread = torch.randn(5, 4), torch.full((5, 1), 0.1)
    seen = []
    monkeypatch.setattr(Canonicalizer, "correction", lambda self, images, start: seen.append(start) or spread * noise)
    model(images, matrix=matrix, noise=noise, spread=spread)
    torch.testing.assert_close(model.refined(model.scaled(images), seen[0]), matrix)


def test_it_is_saved_and_loaded(tmp_path):
    for options in ({}, {"output": "affine6", "refinements": 0}):
        model = tiny(**options).eval()
        model.save_pretrained(tmp_path)
        again = AutoModel.from_pretrained(tmp_path).eval()
        assert isinstance(again, Canonicalizer) and again.config.output == model.config.output
        images, _ = sprites(3)
        assert torch.equal(model(images).matrix, again(images).matrix)


def test_the_papers_network():
    model = tiny(output="affine6", backbone=RESNET_18, refinements=0, num_channels=3, image_size=32)
    assert sum(values.numel() for values in model.parameters()) == 11_176_512 + 6 * 513  # ResNet-18 without its classifier
    assert model(torch.zeros(2, 3, 32, 32)).matrix.shape == (2, 3, 3)


def test_an_unknown_output_is_refused():
    with pytest.raises(SleepkitError, match="output is 'rigid'; use one of similarity4, affine6"):
        tiny(output="rigid")


def test_the_normaliser_is_exact_with_known_parameters():
    """The digest's second experiment: a canonical image comes back, but for interpolation; and a window is a part of it."""
    renderer = SpriteRenderer(64, channels=1)
    classes = torch.arange(20)
    factors, colors = FactorRanges(1, scale=(1.0, 1.0), orientation=(0, 2 * math.pi)).at(classes, torch.zeros_like(classes))
    images, canonical = renderer(classes, factors, colors, classes), renderer.exemplars(classes)
    inside = slice(16, 48)
    found = normalize(images, factors_to_matrix(factors))
    assert (found - canonical)[..., inside, inside].abs().mean() < 0.02
    window = normalize(canonical, torch.eye(3).expand(20, 3, 3), size=32, extent=0.5)
    torch.testing.assert_close(window, canonical[..., inside, inside], atol=1e-5, rtol=0)


def test_an_unknown_angle_does_not_shrink_the_scale():
    """The best single answer for a pose of any angle keeps its scale; the plain squared error would have it at 0."""
    angle = torch.linspace(0, 2 * math.pi, 101)[:-1]
    poses = torch.stack([0.7 * angle.cos() - 1, 0.7 * angle.sin(), 0 * angle + 0.2, 0 * angle], dim=1)
    truth = to_matrix(poses)[:, :2]
    answer = torch.tensor([[0.1, 0.2, 0.0, 0.0]], requires_grad=True)
    optimizer = torch.optim.Adam([answer], 0.05)
    for _ in range(300):
        found = to_matrix(answer.expand(100, 4))[:, :2]
        loss = _squared_error(found, truth, "similarity4")
        torch.testing.assert_close(loss, torch.nn.functional.mse_loss(found, truth))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    a, b, x, _ = answer[0].tolist()
    assert math.hypot(1 + a, b) == pytest.approx(0.7, abs=0.01) and x == pytest.approx(0.2, abs=0.01)
