"""The frozen diffusion model: gradients of the prompt, the sampler's options, and what cannot be used."""

import json
import shutil

import pytest
import torch
from diffusers import LCMScheduler, PNDMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from tiny_painter import save_tiny_generator

from sleepkit.errors import SleepkitError
from sleepkit.utils.precision import computes
from sleepkit.vision.dream2learn.painter import DreamPainter
from sleepkit.vision.dream2learn.soft_prompt import initial_vectors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_generator(tmp_path_factory.mktemp("generator"))


def painter(folder, **options):
    return DreamPainter(folder, **{"sampler_steps": 2, **options})


def images(count=4, seed=0):
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def in_double(one):
    for part in (one.vae, one.unet, one.text_encoder):
        part.double()
    one.dtype = torch.float64
    one.scheduler.alphas_cumprod = one.scheduler.alphas_cumprod.double()
    return one


def loss_of(one, latents, vectors):
    """A smooth function of the images before they are cut to 0..1."""
    text = one.embed(vectors)
    found = one.denoise(one.start(latents, range(4)), text.repeat_interleave(2, 0), range(4))
    weights = torch.linspace(-1, 1, 256, dtype=found.dtype).reshape(1, 16, 16)
    return (one.vae.decode(found / one.vae.config.scaling_factor).sample * weights).sum()


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "LCMScheduler"])
def test_the_gradient_of_a_prompt_is_that_of_finite_differences(folder, tmp_path, scheduler):
    if scheduler == "LCMScheduler":
        folder = shutil.copytree(folder, tmp_path / "lcm")
        one = StableDiffusionPipeline.from_pretrained(folder)
        LCMScheduler.from_config(one.scheduler.config).save_pretrained(folder / "scheduler")
        index = folder / "model_index.json"
        index.write_text(index.read_text().replace("DDIMScheduler", "LCMScheduler"))
    one = in_double(painter(folder))
    assert type(one.scheduler).__name__ == scheduler
    latents = one.encode(images())
    vectors = torch.stack([initial_vectors(one.table, 2, seed) for seed in (1, 2)]).double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(one, latents, vectors), vectors)
    step = 1e-5
    for place in ((0, 0, 3), (0, 1, 5), (1, 0, 0), (1, 1, 15)):
        moved = torch.zeros_like(vectors)
        moved[place] = step
        with torch.no_grad():
            slope = (loss_of(one, latents, vectors + moved) - loss_of(one, latents, vectors - moved)) / (2 * step)
        assert gradient[place].item() == pytest.approx(slope.item(), rel=1e-4, abs=1e-9) and slope != 0


def test_prompts_of_one_batch_do_not_depend_on_each_other(folder):
    one = painter(folder)
    latents = one.encode(images())
    vectors = torch.stack([initial_vectors(one.table, 2, seed) for seed in (1, 2)]).requires_grad_()
    both = one.paint(latents, vectors, [5, 6, 7, 8])
    alone = one.paint(latents[2:], vectors[1:], [7, 8])
    torch.testing.assert_close(both[2:], alone)
    (gradient,) = torch.autograd.grad(both[:2].sum(), vectors)
    assert gradient[0].abs().sum() > 0 and gradient[1].abs().sum() == 0


def test_last_steps_and_checkpoints(folder):
    gradients = {}
    for name, options in {"all": {}, "last": {"grad_steps": 1}, "again": {"checkpointing": True}}.items():
        one = painter(folder, sampler_steps=3, **options)
        vectors = initial_vectors(one.table, 2, 1)[None].requires_grad_()
        painted = one.paint(one.encode(images()), vectors, range(4))
        (gradients[name],) = torch.autograd.grad(painted.sum(), vectors)
        assert one.calls == 12 and painted.shape == (4, 1, 16, 16) and painted.min() >= 0 and painted.max() <= 1
    assert torch.allclose(gradients["all"], gradients["again"], atol=1e-6)
    assert not torch.allclose(gradients["all"], gradients["last"]) and gradients["last"].abs().sum() > 0


def test_half_precision_and_costs(folder):
    one, half = painter(folder), painter(folder, dtype="bfloat16")
    found = []
    for each in (one, half):
        vectors = initial_vectors(each.table, 2, 1)[None].requires_grad_()
        painted = each.paint(each.encode(images()), vectors, range(4))
        (gradient,) = torch.autograd.grad(painted.sum(), vectors)
        assert painted.dtype == gradient.dtype == torch.float32 and gradient.isfinite().all() and gradient.abs().sum() > 0
        found.append(painted)
    assert (found[0] - found[1]).abs().max() < 0.1
    assert half.encode(images()).dtype == torch.float32
    assert painter(folder, dtype="auto").dtype == (torch.bfloat16 if computes(torch.bfloat16, "cpu") else torch.float32)
    assert {type(each).__name__ for each in half.unet.attn_processors.values()} == {"AttnProcessor"}
    assert one.flops == 3 * 4 * one.flops_per_image > 0 and one.calls == 8


def test_strength_decides_how_much_of_the_start_is_left(folder):
    starts = images(2)
    for strength, steps in ((0.25, [249]), (1.0, [999])):
        one = painter(folder, sampler_steps=1, strength=strength)
        assert one.timesteps.tolist() == steps
        latents = one.encode(starts)
        noisy = one.start(latents, [0, 1])
        share = one.scheduler.alphas_cumprod[steps[0]].sqrt()
        assert torch.allclose(noisy - share * latents, one.start(torch.zeros_like(latents), [0, 1]), atol=1e-5)
    assert torch.equal(one.start(latents, [0, 1]), noisy) and not torch.equal(one.start(latents, [0, 2]), noisy)


def test_noise_may_be_shared(folder):
    latents = torch.zeros(3, 8, 4, 4)
    one, half, all_of_it = (painter(folder, strength=1.0, shared_noise=share) for share in (0.0, 0.5, 1.0))
    noise = one.start(latents, [1, 2, 3])
    assert torch.equal(noise, one.start(latents, [1, 2, 3], [9, 9, 8])) and torch.equal(noise, half.start(latents, [1, 2, 3]))
    shared = all_of_it.start(latents, [1, 2, 3], [9, 9, 8])
    assert torch.equal(shared[0], shared[1]) and not torch.equal(shared[0], shared[2])
    torch.testing.assert_close(half.start(latents, [1, 2, 3], [9, 9, 8]), (noise + shared) / 2**0.5)


def test_other_sizes_are_resized_and_the_weights_have_a_hash(folder, tmp_path):
    one = painter(folder)
    before = one.digest()
    small = torch.rand(1, 1, 6, 6)
    assert one.paint(one.encode(small), initial_vectors(one.table, 1, 0)[None], [0], 6).shape == (1, 1, 6, 6)
    assert one.digest() == before != painter(save_tiny_generator(tmp_path, seed=1)).digest()
    one.require_images(1, 6, 6)


def test_a_template_stands_around_the_vectors(folder):
    one, plain = painter(folder, template="a photo of {} square"), painter(folder)
    vectors = initial_vectors(one.table, 2, 0)[None]
    ids = one.tokenizer("a photo of red blue square", padding="max_length", return_tensors="pt").input_ids
    own = one.text_encoder(ids).last_hidden_state
    words = one.text_encoder.get_input_embeddings()(ids)[:, 4:6]
    assert torch.allclose(one.embed(words), own, atol=1e-6) and not torch.allclose(one.embed(vectors), plain.embed(vectors))


def missing_part(folder):
    shutil.rmtree(folder / "unet")


def other_scheduler(folder):
    PNDMScheduler().save_pretrained(folder / "scheduler")
    index = folder / "model_index.json"
    index.write_text(index.read_text().replace("DDIMScheduler", "PNDMScheduler"))


def damaged(folder):
    (folder / "unet" / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (missing_part, "has no unet; give a folder that StableDiffusionPipeline has saved"),
        (other_scheduler, "the scheduler PNDMScheduler, through which no gradient flows here"),
        (damaged, "cannot be loaded"),
    ],
)
def test_a_folder_that_cannot_be_used(folder, tmp_path, harm, words):
    copied = shutil.copytree(folder, tmp_path / "copy")
    harm(copied)
    with pytest.raises(SleepkitError, match=words) as error:
        painter(copied)
    assert "\n" not in str(error.value)


def test_images_and_prompts_that_do_not_fit(folder):
    one = painter(folder)
    with pytest.raises(SleepkitError, match="makes images of 1 channels, the data have 3; set channels to 1"):
        one.require_images(3, 16, 16)
    with pytest.raises(SleepkitError, match="makes images of 16 x 16, the data have 24 x 24; set image_size to 16 or less"):
        one.require_images(1, 24, 24)
    with pytest.raises(SleepkitError, match="prompt_vectors is 9, which makes prompts of 11 tokens; the generator takes 10"):
        one.embed(torch.zeros(1, 9, 16))


def weights_changed(part, change):
    def damage(folder):
        (path,) = (folder / part).glob("*.safetensors")
        weights = load_file(path)
        change(weights)
        save_file(weights, path, metadata={"format": "pt"})

    return damage


def edited(path, **changes):
    def damage(folder):
        file = folder / path
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return damage


def without_first(weights):
    weights.pop(min(weights))


def not_finite(weights):
    weights[min(weights)].fill_(torch.nan)


def cut(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        *((weights_changed(part, without_first), "has no weights of ") for part in ("unet", "vae", "text_encoder")),
        *((weights_changed(part, not_finite), "paints numbers that are not finite") for part in ("unet", "vae", "text_encoder")),
        (cut, "cannot be loaded"),
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "has no tokenizer"),
        (lambda folder: [path.unlink() for path in (folder / "tokenizer").iterdir()], "is loaded and cannot paint"),
        (lambda folder: (folder / "model_index.json").write_text("{}"), "cannot be loaded"),
        (lambda folder: (folder / "unet" / "config.json").write_text("{"), "cannot be loaded"),
        (edited("unet/config.json", sample_size=None), "is loaded and cannot paint"),
        (edited("unet/config.json", block_out_channels=[16, 16]), "cannot be loaded"),
        (edited("scheduler/scheduler_config.json", prediction_type="x"), "is loaded and cannot paint"),
        (edited("scheduler/scheduler_config.json", num_train_timesteps=0), "is loaded and cannot paint"),
        (edited("vae/config.json", scaling_factor=0), "paints numbers that are not finite"),
    ],
)
def test_folders_that_are_damaged(folder, tmp_path, damage, words):
    shutil.copytree(folder, tmp_path / "bad")
    damage(tmp_path / "bad")
    with pytest.raises(SleepkitError, match=f"^generator .*bad.* {words}") as error:
        painter(tmp_path / "bad")
    assert "\n" not in str(error.value) and ";" in str(error.value)


def test_what_a_painter_has_tried_is_not_counted(folder):
    one = painter(folder)
    assert one.calls == one.flops == 0 and one.flops_per_image > 0
