"""Generators: each learns what its classes look like, keeps what dreams need, and is saved and loaded whole."""

import pytest
import torch
from tiny_images import pictures

from sleepkit.vision.mygo.generators import OF_SPACE, DreamGenerator, DreamGeneratorConfig
from sleepkit.vision.mygo.image_generators import ConditionalGan
from sleepkit.vision.mygo.latent_generators import ClassGaussians

x, y = pictures(classes=2, each=40)
PIXELS, PLACES = torch.from_numpy(x)[:, None], torch.from_numpy(y)
HIDDEN = {"conv_cgan": 16, "diffusion": 16}
STEPS = {"cgan": 800, "conv_cgan": 100}


def make(kind, size=(8, 8), channels=1):
    torch.manual_seed(0)
    shape = {"labels": [3, 5], "image_size": list(size), "num_channels": channels, "hidden": HIDDEN.get(kind, 32), "latent": 4}
    return DreamGenerator(DreamGeneratorConfig(kind=kind, **shape))


def trained(kind, steps=None):
    one = make(kind).train()
    optimizer = torch.optim.Adam(one.parameters(), lr=0.005, betas=(0.5, 0.999))
    for _ in range(steps or STEPS.get(kind, 150)):
        optimizer.zero_grad()
        one(PIXELS, PLACES).backward()
        optimizer.step()
    one.eval().settle(PIXELS, PLACES)
    return one


@pytest.mark.parametrize("kind", OF_SPACE["pixels"])
def test_dreams_of_a_class_are_nearest_to_its_mean_image(kind):
    one = trained(kind)
    places = torch.arange(2).repeat_interleave(30)
    dreams = one.dream(places, torch.Generator().manual_seed(0)).float()
    assert dreams.shape == (60, 1, 8, 8)
    means = torch.stack([PIXELS[place == PLACES].float().mean(0) for place in (0, 1)])
    nearest = torch.cdist(dreams.flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == places).double().mean() > 0.9
    assert torch.equal(dreams, one.dream(places, torch.Generator().manual_seed(0)).float())


@pytest.mark.parametrize("kind", OF_SPACE["pixels"])
def test_all_parameters_learn_and_odd_colour_images_fit(kind):
    one = make(kind, (7, 10), 3)
    before = {name: values.clone() for name, values in one.named_parameters()}
    pixels = torch.randint(0, 256, (6, 3, 7, 10), dtype=torch.uint8)
    optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
    one(pixels, torch.tensor([0, 1, 0, 1, 0, 0])).backward()
    optimizer.step()
    assert [name for name, values in one.named_parameters() if torch.equal(values, before[name])] == []
    assert one.dream(torch.tensor([1]), torch.Generator().manual_seed(0)).shape == (1, 3, 7, 10)


@pytest.mark.parametrize("kind", OF_SPACE["pixels"])
def test_saved_whole_and_kept_small(kind, tmp_path):
    one = trained(kind, 3)
    one.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    again = DreamGenerator.from_pretrained(tmp_path)
    assert again.config.labels == [3, 5] and again.config.kind == kind
    for name, values in one.state_dict().items():
        assert torch.equal(values, again.state_dict()[name]), name
    kept = one.kept()
    assert {values.dtype for values in kept.values()} == {torch.float16}
    assert sum(values.numel() for values in kept.values()) <= sum(values.numel() for values in one.parameters())
    other = make(kind)
    other.load_kept(kept)
    places, seeds = torch.tensor([0, 1, 1]), [torch.Generator().manual_seed(0) for _ in range(2)]
    difference = (one.dream(places, seeds[0]).int() - other.dream(places, seeds[1]).int()).abs()
    assert difference.max() <= 2


@pytest.mark.parametrize("kind", OF_SPACE["features"])
def test_dreamt_features_have_the_moments_of_the_data(kind):
    torch.manual_seed(0)
    places = torch.arange(2).repeat(200)
    mixing = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.5]])
    features = 10 + 5 * places[:, None] + torch.randn(400, 3) @ mixing
    one = DreamGenerator(DreamGeneratorConfig(kind=kind, labels=[3, 5], features=3, hidden=16, latent=2))
    one.prepare(features)
    optimizer = torch.optim.Adam(one.parameters(), lr=0.02)
    for _ in range(300 if one.is_trained else 0):
        optimizer.zero_grad()
        one(features, places).backward()
        optimizer.step()
    one.eval().settle(features, places)
    dreams = one.dream(torch.arange(2).repeat(2000), torch.Generator().manual_seed(0))
    assert dreams.dtype == torch.float32
    for place in (0, 1):
        own, found = features[place::2], dreams[place::2]
        torch.testing.assert_close(found.mean(0), own.mean(0), atol=0.6, rtol=0)
        torch.testing.assert_close(torch.cov(found.T), torch.cov(own.T), atol=1.8, rtol=0)


def test_a_mixture_has_the_clusters_of_each_class_and_keeps_them_in_float16():
    """Two clusters of 30 and 10 rows, one direction each, and a class without rows."""
    torch.manual_seed(0)
    centre = torch.tensor([[0.0, 0.0, 0.0], [9.0, 9.0, 9.0]]).repeat_interleave(torch.tensor([30, 10]), 0)
    features = centre + torch.randn(40, 1) * torch.tensor([1.0, -1.0, 0.0]) + 0.01 * torch.randn(40, 3)
    one = DreamGenerator(DreamGeneratorConfig(kind="gaussian", labels=[3, 5], features=3, latent=1, components=2))
    one.prepare(features)
    one.settle(features, torch.zeros(40, dtype=torch.int64))
    other = DreamGenerator(one.config)
    other.load_kept(one.kept())
    dreams = other.dream(torch.zeros(4000, dtype=torch.int64), torch.Generator().manual_seed(0))
    far = dreams.mean(1) > 4.5
    assert far.double().mean() == pytest.approx(0.25, abs=0.03)
    for own, found in ((features[30:], dreams[far]), (features[:30], dreams[~far])):
        torch.testing.assert_close(found.mean(0), own.mean(0), atol=0.1, rtol=0)
        torch.testing.assert_close(torch.cov(found.T), torch.cov(own.T), atol=0.1, rtol=0)
    assert not one.is_trained and other.dream(torch.ones(2, dtype=torch.int64), torch.Generator()).isfinite().all()


def test_the_fitted_gaussian_has_the_moments_of_the_posteriors():
    torch.manual_seed(0)
    means, log_variances = torch.randn(500, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.3]]) + 2, torch.full((500, 2), -1.0)
    gaussians = ClassGaussians(2, 2)
    gaussians.fit(means, log_variances, torch.zeros(500, dtype=torch.int64))
    z = gaussians(torch.randn(20000, 2), torch.zeros(20000, dtype=torch.int64))
    torch.testing.assert_close(z.mean(0), means.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), torch.cov(means.T) + torch.eye(2) * torch.tensor(-1.0).exp(), atol=0.1, rtol=0)
    assert torch.equal(gaussians.factor[1], torch.eye(2))  # no image of this class


def test_the_halves_of_a_gan_do_not_teach_each_other_the_wrong_way():
    """The discriminator's gradient is that of its own loss, and the generator's that of its own."""
    one = make("cgan").net
    assert isinstance(one, ConditionalGan)
    pixels = (PIXELS / 255).flatten(1)
    torch.manual_seed(1)
    one.loss(pixels, PLACES).backward()
    found = {name: values.grad.clone() for name, values in one.named_parameters()}
    one.zero_grad()
    torch.manual_seed(1)
    noise = torch.randn(len(pixels), one.latent)
    classes = torch.nn.functional.one_hot(PLACES, 2).float()
    dreams = one.decoder(torch.cat([noise, classes], 1))
    softplus = torch.nn.functional.softplus
    real, fake = (one.discriminator(torch.cat([images, classes], 1)) for images in (2 * pixels - 1, dreams))
    for part, loss in (("discriminator", softplus(-real).mean() + softplus(fake).mean()), ("decoder", softplus(-fake).mean())):
        parameters = dict(getattr(one, part).named_parameters())
        for name, values in zip(parameters, torch.autograd.grad(loss, parameters.values(), retain_graph=True), strict=True):
            torch.testing.assert_close(found[f"{part}.{name}"], values)


def test_the_published_generator_has_the_size_of_the_published_code():
    one = DreamGenerator(DreamGeneratorConfig(kind="cgan", labels=[0, 1], hidden=128, latent=64))
    assert sum(values.numel() for values in one.net.decoder.parameters()) == 109716 - 4  # without the embedding of two labels
