"""What a user can get wrong, from the command line: one line that names the value and the remedy, before any training."""

import json
import shutil
from collections import namedtuple

import pytest
from tiny import tiny_model, tiny_tokenizer
from transformers import OPTConfig, OPTForCausalLM

from sleepkit import cli

ROW = {
    "title": "Ada",
    "context": "Ada keeps a red lamp in the north tower. The tower was built by Orla Finch in 1871.",
    "questions": [{"question": "Who built the tower of Ada?", "answer": "Orla Finch"}],
}
SMALL = """--nights 1 --expert_width 4 --use_cpu --max_steps 2 --per_device_train_batch_size 2 --context_max_tokens 300
    --max_new_tokens 4 --general_items 2 --general_tokens 4 --styles cloze recite --no_gate"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    tiny_model().save_pretrained(folder / "base")
    tiny_tokenizer().save_pretrained(folder / "base")
    (folder / "rows.jsonl").write_text(json.dumps(ROW))
    return folder


@pytest.fixture
def refused(files, tmp_path, capsys):
    """Run `sleepkit sleep` and return its one line."""

    def run(*more, model=None, dataset=None):
        given = ["--model", str(model or files / "base"), "--dataset", str(dataset or files / "rows.jsonl")]
        code = cli.main(["sleep", *given, "--output_dir", str(tmp_path / "run"), *SMALL.split(), *more])
        said = capsys.readouterr().err.strip().splitlines()
        assert code == 2 and sum("sleepkit: error:" in line for line in said) == 1, said
        assert not list((tmp_path / "run").glob("night_*/examples.jsonl")) or "state" in said[-1] or "another run" in said[-1]
        return said[-1]

    return run


def test_a_recipe_with_an_unknown_key(refused, tmp_path):
    (tmp_path / "recipe.yaml").write_text("learning_rat: 0.1\n")
    line = refused("--config", str(tmp_path / "recipe.yaml"))
    assert "unknown key 'learning_rat'" in line and "did you mean learning_rate" in line


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b" \n", "has an empty text"),
        ("noise.txt", b"\xff\xfe\x00\xd8", "cannot be read as UTF-8"),
        ("columns.jsonl", b'{"name": "Ada", "body": "text"}', "has the columns ['body', 'name']; expected"),
        ("cut.jsonl.gz", b"\x1f\x8b\x08\x00", "cannot be read"),
        ("rows.csv", b"a,b\n1,2", "has the columns ['a', 'b']; expected"),
        ("picture.png", b"\x89PNG", "is a picture"),
    ],
)
def test_documents_that_cannot_be_read(refused, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    line = refused(dataset=tmp_path / name)
    assert words in line and name in line


def test_a_folder_without_documents(refused, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "has no file; give a folder of texts" in refused(dataset=tmp_path / "nothing")


def test_a_model_whose_layers_cannot_grow(refused, tmp_path):
    small = {"hidden_size": 32, "ffn_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "word_embed_proj_dim": 32}
    tokenizer = tiny_tokenizer()
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    OPTForCausalLM(OPTConfig(vocab_size=len(tokenizer), **small, **special)).save_pretrained(tmp_path / "opt")
    tokenizer.save_pretrained(tmp_path / "opt")
    line = refused(model=tmp_path / "opt")
    assert "OPTForCausalLM has no list of 2 decoder layers with an FFN block" in line


def test_a_tokenizer_that_does_not_fit(refused, files, tmp_path):
    for name, change, words in (
        ("words", lambda t: t.add_tokens([f"extra{k}" for k in range(9)]), "the model has 64 embeddings"),
        ("end", lambda t: setattr(t, "eos_token", None), "the model's generation stops at"),
        ("chat", lambda t: setattr(t, "chat_template", "{{ raise_exception('no') }}"), "cannot be rendered (no); mend it"),
    ):
        shutil.copytree(files / "base", tmp_path / name)
        for path in (*(tmp_path / name).glob("tokenizer*"), *(tmp_path / name).glob("chat_template*")):
            path.unlink()
        tokenizer = tiny_tokenizer()
        change(tokenizer)
        tokenizer.save_pretrained(tmp_path / name)
        assert words in refused(model=tmp_path / name)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--context_max_tokens", "600"), "the model's window holds 512"),
        (("--alpha", "1.5"), "alpha is 1.5; give a number from 0 to 1"),
        (("--lmbda", "-0.1"), "lmbda is -0.1; give a number from 0 to 1"),
        (("--chain_epochs", "0"), "chain_epochs is 0.0; give a number above 0"),
        (("--chain", "1", "4", "--expert_slots", "4"), "expert_slots is 4; chain [1, 4] needs at least 6"),
        (("--expert_layers", "77"), "layers [77]"),
    ],
)
def test_values_out_of_range(refused, more, words):
    assert words in refused(*more)


def test_a_full_disk(refused, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("sleepkit.cycle.cycle.shutil.disk_usage", lambda _: usage(10, 10, 0))
    assert "GiB free, the run needs" in refused()


def test_a_stage_of_zero_that_a_part_refuses(refused, monkeypatch):
    monkeypatch.setattr("transformers.integrations.is_deepspeed_zero3_enabled", lambda: True)
    line = refused("--sender", "adapter")
    assert "ZeRO-3" in line and "use ZeRO-2" in line


def test_a_folder_of_another_run(refused, files, tmp_path, capsys):
    command = ["sleep", "--model", str(files / "base"), "--dataset", str(files / "rows.jsonl")]
    assert cli.main([*command, "--output_dir", str(tmp_path / "run"), *SMALL.split()]) == 0
    capsys.readouterr()
    assert "belongs to another run" in refused("--alpha", "0.25") and "another" in refused("--alpha", "0.25")
    tiny_model(seed=1).save_pretrained(tmp_path / "other")  # of the same shape, with other weights
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    assert "inputs.weights is" in refused(model=tmp_path / "other")
    shutil.copytree(files / "base", tmp_path / "moved")
    again = ["sleep", "--model", str(tmp_path / "moved"), *command[3:], "--output_dir", str(tmp_path / "run"), *SMALL.split()]
    assert cli.main(again) == 0  # the same model, wherever it is
    for weights in (tmp_path / "run" / "state").glob("night_*/expert_bank.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-64])
    assert cli.main(again) == 0  # the state before the night is whole, so the night is slept again
    for manifest in (tmp_path / "run" / "state").glob("night_*/MANIFEST.json"):
        manifest.unlink()
    assert "has no state that is whole" in refused()
