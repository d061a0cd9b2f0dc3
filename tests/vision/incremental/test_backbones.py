"""Backbones that cannot be used: one line when they are loaded, before anything is learned."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_images import tiny_resnet
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from sleepkit.errors import SleepkitError
from sleepkit.vision.disentangled.canonicalizer import Canonicalizer, CanonicalizerConfig
from sleepkit.vision.incremental.backbones import load_backbone
from sleepkit.vision.incremental.classifier import IncrementalClassifier

SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
SIGHT = {**SMALL, "image_size": 16, "patch_size": 4}


@pytest.fixture
def resnet(tmp_path):
    return tiny_resnet(tmp_path / "resnet")


def edited(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def weights_changed(folder, change):
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def refused(folder, size=8, form=IncrementalClassifier, **options):
    with pytest.raises(SleepkitError) as error:
        if form is Canonicalizer:
            form.on_backbone(str(folder), CanonicalizerConfig(num_channels=3, image_size=size, refinements=0))
        else:
            form.on_backbone(str(folder), 3, [size, size], **options)
    said = str(error.value)
    assert str(folder) in said and "\n" not in said and ";" in said
    return said


def cut(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "cannot be loaded"),
        (lambda one: (one / "model.safetensors").write_bytes(b""), "cannot be loaded"),
        (lambda one: (one / "model.safetensors").unlink(), "cannot be loaded"),
        (lambda one: (one / "config.json").write_text("{"), "cannot be loaded"),
        (lambda one: (one / "config.json").write_text("[]"), "cannot be loaded"),
        (lambda one: edited(one, model_type="nonsense"), "cannot be loaded"),
        (lambda one: edited(one, hidden_act="nonsense"), "cannot be loaded"),
        (lambda one: edited(one, hidden_sizes="x"), "cannot be loaded"),
        (lambda one: edited(one, hidden_sizes=[4, 8]), "that fit its config.json; save it again"),
        (lambda one: edited(one, depths=[1, 2]), "has no weights of encoder.stages.1.layers.1.layer.0.convolution.weight and 9"),
        (lambda one: weights_changed(one, lambda weights: weights.popitem()), "has no weights of encoder"),
        (lambda one: (one / "preprocessor_config.json").write_text("{"), "preprocessor_config.json cannot be read"),
        (
            lambda one: weights_changed(one, lambda weights: weights["embedder.embedder.convolution.weight"].fill_(torch.nan)),
            "makes numbers that are not finite of images of 3 x 8 x 8; its weights are damaged",
        ),
    ],
)
@pytest.mark.parametrize("form", [IncrementalClassifier, Canonicalizer])
def test_folders_that_are_damaged(resnet, damage, words, form):
    damage(resnet)
    assert words in refused(resnet, form=form)


def test_models_that_take_no_images(tmp_path):
    sight = {**SIGHT, "projection_dim": 8}
    models = {
        "bert": BertModel(BertConfig(vocab_size=20, **SMALL)),
        "clip": CLIPModel(CLIPConfig(text_config={**SMALL, "vocab_size": 20}, vision_config=sight)),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        assert "takes input_ids, not images; give a vision model" in refused(tmp_path / name)
        assert "takes input_ids, not images" in refused(tmp_path / name, pretrained=False)


@pytest.mark.parametrize("form", [IncrementalClassifier, Canonicalizer])
def test_images_of_another_size(tmp_path, form):
    ViTModel(ViTConfig(**SIGHT)).save_pretrained(tmp_path)
    assert "does not take images of 3 x 8 x 8 (Input image size (8*8) doesn't match model (16*16)); set" in refused(
        tmp_path, form=form
    )
    model = IncrementalClassifier.on_backbone(str(tmp_path), 3, [16, 16], top_size=4)
    assert model.training and model.backbone.training and model(pixel_values=torch.zeros(2, 3, 16, 16)).features.shape == (2, 4)


def test_a_mean_of_other_channels(resnet, tmp_path):
    grey = tiny_resnet(tmp_path / "grey", channels=1)
    shutil.copy(resnet / "preprocessor_config.json", grey)
    with pytest.raises(SleepkitError, match="does not take images of 1 x 8 x 8"):
        IncrementalClassifier.on_backbone(str(grey), 1, [8, 8])


def test_a_pooler_that_was_not_saved_is_said_to_start_at_random(tmp_path, capsys):
    ViTForImageClassification(ViTConfig(**SIGHT)).save_pretrained(tmp_path)
    load_backbone(str(tmp_path), 3)
    said = f"backbone {tmp_path} has no weights of pooler.dense.bias, pooler.dense.weight, which start at random\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("name", ["", "/nowhere/at/all", "a" * 300, "a\0b", "owner/not here"])
def test_names_of_nothing(name):
    with pytest.raises(SleepkitError, match="cannot be loaded"):
        load_backbone(name, 3)
