"""The growing classifier: exact growth, saving and loading, any backbone of transformers."""

import pytest
import torch
from tiny_images import tiny_classifier
from torch.nn import functional as F
from transformers import AutoModel as AnyModel
from transformers import AutoModelForImageClassification, ConvNextConfig, Dinov2Config, ResNetConfig, ViTConfig

from sleepkit.errors import SleepkitError
from sleepkit.vision.incremental.classifier import IncrementalClassifier, IncrementalClassifierConfig, masked_cross_entropy
from sleepkit.vision.incremental.output_units import DREAM

PIXELS = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_growing_changes_no_existing_unit():
    model = tiny_classifier()
    assert model(PIXELS).logits.shape == (3, 0)
    assert model.grow([5, 2], task=0) == [0, 1]
    before, head = model(PIXELS).logits, model.head.weight.detach().clone()
    assert model.grow([0, 1], task=1, names=["zero", "one"]) == [2, 3]
    torch.testing.assert_close(model(PIXELS).logits[:, :2], before)  # a wider product may round its last bit elsewhere
    assert torch.equal(model.head.weight[:2], head)
    assert model.config.id2label == {0: "5", 1: "2", 2: "zero", 3: "one"} and model.config.num_labels == 4
    assert model.units_of(torch.tensor([1, 2, 5])).tolist() == [3, 1, 0]
    assert model.mask(task=1).tolist() == [False, False, True, True]


def test_bytes_and_shares_of_one_are_the_same_image():
    model = tiny_classifier()
    model.grow([0], 0)
    torch.testing.assert_close(model(PIXELS).logits, model(PIXELS / 255).logits)


@pytest.mark.parametrize("hidden_size", [6, 0])
def test_a_code_stands_for_its_image(hidden_size, tmp_path):
    model = tiny_classifier(hidden_size=hidden_size, top_size=5)
    model.grow([0, 1], 0)
    codes = model.encode(PIXELS)
    assert codes.shape == (3, model.code_size) == (3, hidden_size or 4 * 4) and model.head.in_features == 5
    assert torch.equal(model(codes).logits, model(PIXELS).logits)
    model.save_pretrained(tmp_path)
    assert torch.equal(IncrementalClassifier.from_pretrained(tmp_path)(PIXELS).logits, model(PIXELS).logits)


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_pooling_by_maxima_has_the_sizes_of_strides(size):
    form = {"num_channels": 1, "image_size": list(size), "cnn_widths": [4, 6], "hidden_size": 5}
    found = IncrementalClassifier(IncrementalClassifierConfig(**form, cnn_max_pool=True))
    pixels = torch.rand(2, 1, *size)
    assert found.encode(pixels).shape == (2, 5)
    pooled = torch.nn.functional.max_pool2d(found.backbone.convolutions[0](2 * pixels - 1).relu(), 2, ceil_mode=True)
    assert (
        pooled.shape[2:] == IncrementalClassifier(IncrementalClassifierConfig(**form)).backbone.convolutions[0](pixels).shape[2:]
    )


def test_units_of_all_kinds_survive_saving(tmp_path):
    model = tiny_classifier()
    model.grow([5, 2], task=0, names=["five", "two"])
    model.grow([0, 1], task=0, state=DREAM)
    model.slots.release([3])
    model.set_slots(model.slots)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert type(again) is IncrementalClassifier and again.slots.to_dict() == model.slots.to_dict()
    assert again.config.id2label == {0: "five", 1: "two", 2: "dream 0", 3: "free 3"}
    assert torch.equal(again(PIXELS).logits, model(PIXELS).logits)
    assert again.grow([7], task=1) == [3] and again.config.id2label[3] == "7"


@pytest.mark.parametrize(
    "config",
    [
        ResNetConfig(num_channels=1, embedding_size=4, hidden_sizes=[4, 6], depths=[1, 1], layer_type="basic"),
        ViTConfig(image_size=8, patch_size=4, num_channels=1, **{"hidden_size": 8, "num_hidden_layers": 1}),
        ConvNextConfig(num_channels=1, hidden_sizes=[4, 4, 4, 6], depths=[1, 1, 1, 1], patch_size=2),
        Dinov2Config(image_size=8, patch_size=4, num_channels=1, hidden_size=8, num_hidden_layers=1),
    ],
    ids=lambda config: config.model_type,
)
def test_any_backbone(config, tmp_path):
    if hasattr(config, "num_attention_heads"):
        config.num_attention_heads, config.intermediate_size = 2, 16
    backbone = AnyModel.from_config(config).eval()
    backbone.save_pretrained(tmp_path / "backbone")
    pixels = PIXELS.repeat(1, 1, 4, 4) if config.model_type == "convnext" else PIXELS
    model = IncrementalClassifier.on_backbone(str(tmp_path / "backbone"), 1, pixels.shape[-2:]).eval()
    for name, values in backbone.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], values), name
    model.grow([0, 1], 0)
    loss = model.train()(pixels, labels=torch.tensor([0, 1, 0])).loss
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    model.eval().save_pretrained(tmp_path / "model")
    again = IncrementalClassifier.from_pretrained(tmp_path / "model").eval()
    torch.testing.assert_close(again(pixels).logits, model(pixels).logits)
    with pytest.raises(SleepkitError, match="takes 1 channels, the images have 3; set channels to 1"):
        IncrementalClassifier.on_backbone(str(tmp_path / "backbone"), 3, [8, 8])


def test_the_normalisation_of_a_pretrained_backbone_is_kept(tmp_path):
    AnyModel.from_config(ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic")).save_pretrained(
        tmp_path
    )
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ConvNextImageProcessor", "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}'
    )
    model = IncrementalClassifier.on_backbone(str(tmp_path), 3, [32, 32])
    assert model.image_mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert model.image_std.flatten().tolist() == pytest.approx([0.4, 0.5, 0.6])


def test_an_architecture_without_its_weights(tmp_path):
    config = ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic")
    AnyModel.from_config(config).save_pretrained(tmp_path)
    model = IncrementalClassifier.on_backbone(str(tmp_path), 1, [32, 32], pretrained=False)
    model.grow([0], 0)
    assert model(torch.zeros(2, 1, 32, 32)).logits.shape == (2, 1)
    weights = [
        IncrementalClassifier.on_backbone(str(tmp_path), 3, [32, 32], pretrained=p).backbone.state_dict() for p in (True, False)
    ]
    name = next(iter(weights[0]))
    assert not torch.equal(weights[0][name], weights[1][name])


def test_no_such_backbone(tmp_path):
    with pytest.raises(SleepkitError, match="cannot be loaded .*; give 'cnn', a folder or a Hub id"):
        IncrementalClassifier.on_backbone(str(tmp_path), 1, [8, 8])


def test_masked_cross_entropy_is_that_of_the_allowed_units():
    logits, labels = torch.randn(4, 5), torch.tensor([1, 3, 1, 3])
    expected = F.cross_entropy(logits[:, [1, 3]], torch.tensor([0, 1, 0, 1]))
    one = torch.tensor([False, True, False, True, False])
    torch.testing.assert_close(masked_cross_entropy(logits, labels, one), expected)
    torch.testing.assert_close(masked_cross_entropy(logits, labels, one.expand(4, 5)), expected)


def test_config_has_defaults_that_load(tmp_path):
    IncrementalClassifierConfig().save_pretrained(tmp_path)
    assert IncrementalClassifierConfig.from_pretrained(tmp_path).hidden_size == 256
