"""Cards for what a run publishes: Hugging Face model and dataset cards, from the numbers of `results.json`.

A card carries numbers, settings and versions, never documents, questions or answers: what a model read may be private,
and a card is public wherever the model is. Local paths are cut to their last part and access tokens left out.

Its code runs as printed: `REPOSITORY` stands in it for the name of the repository, which is put there when it is uploaded.

What it leaves out: uploading (hub.py), and the report for the owner of the run (report.py), which does quote answers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sleepkit.errors import SleepkitError
from sleepkit.reporting.results import in_model
from sleepkit.reporting.tables import (
    METRICS,
    code_block,
    comparison_table,
    format_duration,
    format_memory,
    headline,
    markdown_table,
)

if TYPE_CHECKING:
    from huggingface_hub import DatasetCard, ModelCard, ModelCardData

__all__ = [
    "REPOSITORY",
    "canonicalizer_card",
    "classifier_card",
    "dataset_card",
    "is_hub_id",
    "model_card",
    "model_name",
    "published_name",
]

_TAGS = ["sleepkit", "continual-learning", "knowledge-seeding"]
_PAPER = "[Language Models Need Sleep](https://arxiv.org/abs/2606.03979)"
REPOSITORY = "OWNER/NAME"
_SECRET = re.compile(r"(token|api_key|password|secret)$", re.IGNORECASE)  # names of fields
_TOKEN = re.compile(r"\bhf_\w{8,}")
_FOLDERS = re.compile(r"""(?<![\w.:/])(?:~?/|[A-Za-z]:[\\/])(?:[^\s/\\'"]+[/\\])+(?=[^\s/\\'"])""")  # above a file, within a text
_ASKED = """asked = [{"role": "user", "content": "What have you read?"}]
options = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True, "enable_thinking": False}
inputs = tokenizer.apply_chat_template(asked, **options)
reply = model.generate(**inputs, do_sample=False, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :]
print(tokenizer.decode(reply, skip_special_tokens=True))
```"""
PLAIN_USE = f"""It is an ordinary checkpoint of its architecture, with wider feed-forward blocks, and needs no code of sleepkit:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{REPOSITORY}")
model = AutoModelForCausalLM.from_pretrained("{REPOSITORY}")
{_ASKED}"""
_LIBRARIES = {"plain": "transformers", "experts": "sleepkit", "lora": "peft"}
_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


def model_card(
    results: Mapping[str, Any],
    *,
    model_name: str,
    base_model: str,
    dataset: str,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    baselines: Sequence[Mapping[str, Any]] = (),
    form: str = "experts",
    lora: Mapping[str, Any] | None = None,
) -> ModelCard:
    """The card of a model that has slept, with its metrics also as a `model-index` that the Hub reads.

    Args:
        results: content of the run's `results.json`.
        model_name: name of the slept model.
        base_model: Hub id or local path of the model before sleep; only a Hub id enters the metadata.
        dataset: name of what the model read, as it may be published.
        license: licence of the weights as the Hub spells it, usually the base model's; None leaves it open.
        language: ISO 639 code or codes.
        baselines: results of other methods on the same data, for a table of comparison.
        form: ``experts`` alone, ``plain`` (a whole model that needs no sleepkit), or ``lora`` (an adapter of PEFT).
        lora: of form ``lora`` its measures and settings, as `lora_export.distilled` returns them.

    Raises:
        SleepkitError: if the run has no metrics.
    """
    from huggingface_hub import EvalResult, ModelCardData

    metrics = {name: value for name, value in results["metrics"].items() if value is not None}
    if not metrics:
        raise SleepkitError(f"the run of {results['method']!r} has no metrics for a card; evaluate it first")
    if lora is not None:  # the numbers of the run are those of the model that it was distilled from
        metrics = {name: shares["lora"] for name, shares in lora["measures"].items()}
    scores = [
        EvalResult(
            task_type="question-answering",
            dataset_type=_slug(dataset),
            dataset_name=dataset,
            metric_type=name,
            metric_value=value,
        )
        for name, value in metrics.items()
    ]
    data = ModelCardData(
        model_name=model_name,
        base_model=base_model if is_hub_id(base_model) else None,
        base_model_relation=("finetune" if form == "plain" else "adapter") if is_hub_id(base_model) else None,
        language=[language] if isinstance(language, str) else list(language or []) or None,
        license=license,
        library_name=_LIBRARIES[form],
        pipeline_tag="text-generation",
        tags=_TAGS,
        eval_results=scores,
    )
    name = base_model if is_hub_id(base_model) else Path(base_model).name
    nights = results.get("nights") or []
    kept = sum(map(in_model, nights))
    about = f"{_read(name, results, dataset, len(nights), kept)} Made with sleepkit, which follows {_PAPER}."
    sections = {
        "": about if lora is None else f"A LoRA, distilled from {about}",
        "What the LoRA loses": "" if lora is None else _lost(lora),
        "Results" if lora is None else "Results of the slept model": markdown_table(["measure", "value"], headline(results)),
        "Nights": f"{len(nights)} nights, of which {kept} were kept; the others were rolled back or forgotten." if nights else "",
        "Compared with other methods": comparison_table([results, *baselines]) if baselines else "",
        "Use": {"plain": PLAIN_USE, "lora": _use_of_lora(name)}.get(form) or _use(name, is_hub_id(base_model)),
        "Limits": "Answers about what was read come from the weights, without a source, and can be wrong; "
        "the scores above say how often. The biases and limits of the base model remain.",
        "Training": _training(results),
    }
    return _model_card(model_name, data, sections)


def _read(name: str, results: Mapping[str, Any], dataset: str, nights: int, kept: int) -> str:
    """What the model has done, in words that its nights and measurements bear out."""
    if nights and not kept:
        return f"{name} as it was: it slept on {dataset} by {results['method']}, and no night was kept."
    text = f"{name} after sleep by {results['method']} on {dataset}."
    metrics = results["metrics"]
    for before, after, what in (
        ("closed_book_before", "closed_book_after", "the questions about it"),
        ("self_test_before", "self_test_after", "the questions that it wrote about it and was never trained on"),
    ):
        if metrics.get(before) is not None and metrics.get(after) is not None:
            return (
                f"{text} With nothing in its context it answers {metrics[after]:.0%} of {what}; before sleep it answered "
                f"{metrics[before]:.0%}."
            )
    return f"{text} Whether it answers questions about that was not measured."


def _use(name: str, on_hub: bool) -> str:
    """How to ask the model; a base that is not on the Hub must be given."""
    where = "" if on_hub else f', base_model="{name}"'
    option = "" if on_hub else f" --model {name}"
    note = "" if on_hub else f"\n\nThe base, {name}, is not part of this repository: give the folder where you have it."
    return (
        f'Install sleepkit, then in a shell:\n\n```bash\nsleepkit ask {REPOSITORY} "What have you read?"{option}\n```\n\n'
        "or from Python:\n\n```python\nfrom sleepkit import load_model\n"
        "from sleepkit.language.generation.chat import reply_texts\n\n"
        f'model, tokenizer = load_model("{REPOSITORY}"{where})\n'
        f'print(reply_texts(model, tokenizer, ["What have you read?"])[0])\n```{note}'
    )


def _use_of_lora(name: str) -> str:
    """How to put a LoRA on its base."""
    note = "" if is_hub_id(name) else f"\n\nThe base, {name}, is a folder: give the one where you have it."
    return (
        "```python\nfrom peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{REPOSITORY}")\n'
        f'model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{name}"), "{REPOSITORY}")\n{_ASKED}{note}'
    )


def _lost(lora: Mapping[str, Any]) -> str:
    """What was measured of base, slept model and LoRA, as a table with a few words."""
    measures = lora["measures"]
    titles = {
        "closed_book": "right answers to the run's own questions",
        "kl_questions": "KL to the slept model on these questions, nats per token",
        "kl_general": "KL to the slept model on general prompts, nats per token",
    }
    rows = [
        (title, *(_number(name, measures[name].get(which)) for which in ("base", "slept", "lora")), measures[name]["n"])
        for name, title in titles.items()
        if name in measures
    ]
    table = markdown_table(["measure", "base", "slept model", "this LoRA", "prompts"], rows)
    made = (
        f"Rank {lora['rank']}, alpha {lora['alpha']}, {lora['steps']} steps on {lora['items']} examples of its nights and "
        f"{lora['general_items']} general prompts, seed {lora['seed']}; all in `distillation.json`."
    )
    return (
        "A night adds hidden units, which a LoRA can only approximate. The slept model in its plain form answers exactly as it "
        f"does; this LoRA is for programs that swap adapters.\n\n{table}\n\n{made}"
    )


def _number(name: str, value: float | None) -> str:
    """A measure as a card shows it; the divergence of the slept model from itself is not measured."""
    if value is None:
        return "0" if name.startswith("kl_") else ""
    return f"{value:.0%}" if name == "closed_book" else f"{value:.4f}"


def published_name(dataset: str) -> str:
    """Name of a data set as it may be published: without the folders above a local file."""
    return str(_public(dataset))


def model_name(repo_id: str | None, default: str) -> str:
    """Name of a model on its card: that of its repository, ``default`` where it is not pushed; either without its owner."""
    return (repo_id or default).rstrip("/").split("/")[-1]


def classifier_card(
    results: Mapping[str, Any],
    *,
    model_name: str,
    base_model: str | None,
    dataset: str,
    generators: Sequence[str] = (),
    features: bool = False,
) -> ModelCard:
    """The card of an image classifier that met its classes one after the other.

    Args:
        results: content of the run's `results.json`.
        model_name: name of the classifier.
        base_model: Hub id or local path of the backbone, only a Hub id enters the metadata; None for a small CNN.
        dataset: name of the images, as it may be published.
        generators: folders of its generators of dreams, below ``generators``.
        features: whether it takes features in place of images.

    Raises:
        SleepkitError: if the run has no metrics.
    """
    shape = "model.config.code_size" if features else "model.config.num_channels, *model.config.image_size"
    values = "features" if features else "images: uint8, or float from 0 to 1"
    use = (
        "```python\nimport torch\nimport sleepkit.vision.incremental.classifier  # makes the architecture known\n"
        "from transformers import AutoModelForImageClassification\n\n"
        f'model = AutoModelForImageClassification.from_pretrained("{REPOSITORY}")\n'
        f"pixel_values = torch.rand(1, {shape})  # your {values}\n"
        "unit = model(pixel_values).logits.argmax(1).item()\nprint(model.config.id2label[unit])\n```"
    )
    if generators:
        use += (
            f"\n\nOf each experience there is a generator of dreams, `generators/{generators[0]}` to `{generators[-1]}`:\n\n"
            "```python\nimport torch\nfrom huggingface_hub import snapshot_download\n"
            "from sleepkit.vision.mygo.generators import DreamGenerator\n\n"
            f'generator = DreamGenerator.from_pretrained(snapshot_download("{REPOSITORY}") + "/generators/{generators[0]}")\n'
            "places = torch.tensor([0, 0, 0])  # of generator.config.labels\n"
            "dreams = generator.eval().dream(places, torch.Generator().manual_seed(0))\n```"
        )
    about = (
        f"A classifier of {dataset} that met its data in {len(results['nights'])} experiences, one after the other, by the "
        f"method {results['method']!r}. Made with sleepkit."
    )
    return _image_card(results, model_name, base_model, dataset, ("class_il", "task_il", "domain_il"), about, use)


def canonicalizer_card(results: Mapping[str, Any], *, model_name: str, dataset: str) -> ModelCard:
    """The card of a canonicalizer with its exemplars; arguments and errors as in `classifier_card`."""
    use = (
        "```python\nfrom pathlib import Path\n\nimport torch\nfrom huggingface_hub import snapshot_download\n"
        "from sleepkit.vision.disentangled.canonicalizer import Canonicalizer\n"
        "from sleepkit.vision.disentangled.exemplars import Exemplars\n\n"
        f'folder = Path(snapshot_download("{REPOSITORY}"))\n'
        'model, exemplars = Canonicalizer.from_pretrained(folder).eval(), Exemplars.load(folder / "exemplars")\n'
        "size = model.config.image_size\n"
        "images = torch.rand(1, model.config.num_channels, size, size)  # yours, float from 0 to 1\n"
        "print(exemplars.classify(images, model(images).matrix).labels[:, 0])\n```"
    )
    about = (
        f"A network that says in which pose it sees the shapes of {dataset}, and an exemplar of each of them. It met them in "
        f"{len(results['nights'])} experiences, one after the other. Made with sleepkit, which follows "
        "[Infinite dSprites](https://arxiv.org/abs/2312.16731)."
    )
    return _image_card(results, model_name, None, dataset, ("accuracy", "off_grid_accuracy", "one_shot", "auroc"), about, use)


def _image_card(
    results: Mapping[str, Any],
    model_name: str,
    base_model: str | None,
    dataset: str,
    scores: Sequence[str],
    about: str,
    use: str,
) -> ModelCard:
    """The card of a model that met images in parts; ``scores`` are the metrics that the Hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    metrics = results["metrics"]
    if not metrics:
        raise SleepkitError(f"the run of {results['method']!r} has no metrics for a card; evaluate it first")
    data = ModelCardData(
        model_name=model_name,
        base_model=base_model if base_model and is_hub_id(base_model) else None,
        library_name="sleepkit",
        pipeline_tag="image-classification",
        tags=["sleepkit", "continual-learning", f"{results['config']['scenario']}-incremental"],
        eval_results=[
            EvalResult("image-classification", _slug(dataset), dataset, name, metrics[name], metric_name=METRICS[name])
            for name in scores
            if name in metrics
        ],
    )
    sections = {
        "": about,
        "Results": markdown_table(["measure", "value"], headline(results)),
        "Use": use,
        "Training": _training(results),
    }
    return _model_card(model_name, data, sections)


def _model_card(name: str, data: ModelCardData, sections: Mapping[str, str]) -> ModelCard:
    """Metadata and a section for each text that is not empty; the one without a title comes first."""
    from huggingface_hub import ModelCard

    body = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in sections.items() if text)
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n# {name}\n\n{body}\n")


def dataset_card(
    counts: Mapping[str, int],
    *,
    name: str,
    writer: str,
    source: str,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
) -> DatasetCard:
    """The card of the examples that a model wrote for itself before or during sleep.

    Args:
        counts: style (question, rewrite, recitation, ...) -> number of items.
        name: name of the data set.
        writer: Hub id or local path of the model that wrote it.
        source: name of the documents that it had in view, as it may be published.
        license: licence as the Hub spells it; None leaves it open. It must suit the documents, which the items restate.
        language: ISO 639 code or codes.

    Raises:
        SleepkitError: if there are no items.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    total = sum(counts.values())
    if total == 0:
        raise SleepkitError(f"data set {name!r} has no items to describe; write examples before its card")
    data = DatasetCardData(
        pretty_name=name,
        language=[language] if isinstance(language, str) else list(language or []) or None,
        license=license,
        annotations_creators="machine-generated",
        language_creators="machine-generated",
        source_datasets=["original"],
        size_categories=next((size for limit, size in _SIZES.items() if total < limit), "n>1M"),
        task_categories=["question-answering"],
        tags=[*_TAGS, "synthetic"],
    )
    model = writer if is_hub_id(writer) else Path(writer).name
    body = (
        f"# {name}\n\n"
        f"Written by {model} with {source} in view, to consolidate it into weights with sleepkit ({_PAPER}). Nobody "
        "has checked the items: they restate the documents and can be wrong.\n\n"
        f"{markdown_table(['style', 'items'], [*counts.items(), ('all', total)])}\n"
    )
    return DatasetCard(f"---\n{data.to_yaml()}\n---\n\n{body}")


def _training(results: Mapping[str, Any]) -> str:
    """Write the part of a card on settings, versions and cost."""
    hardware = results["hardware"]
    machine = ", ".join(hardware["gpus"]) or f"{hardware['cpu']} ({hardware['cores']} cores)"
    cost = f"{format_duration(results['seconds'])} on {machine}, at most {format_memory(results['peak_memory_bytes'])}"
    packages = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return f"Seed {results['seed']}, {cost}. {packages}.\n\n{code_block(_public(results['config']))}"


def _public(value: Any) -> Any:
    """Settings without access tokens and without the folders above local files."""
    if isinstance(value, Mapping):
        return {_public(key): _public(item) for key, item in value.items() if item is not None and not _SECRET.search(str(key))}
    if isinstance(value, (list, tuple)):
        return [_public(item) for item in value]
    return _public_text(value) if isinstance(value, str) else value


def _public_text(text: str) -> str:
    """A setting as others may read it: of a path its last part, of an address no login and no query, of a token nothing."""
    text = _TOKEN.sub("", text)
    if "://" in text:
        return re.sub(r"//[^/@\s]*@", "//", text).split("?")[0]
    path = Path(text).expanduser()
    nested = re.fullmatch(r"[^\s/]+(/[^\s/]+){2,}/?", text) is not None  # deeper than owner/name
    if text and (path.is_absolute() or text.startswith((".", "~")) or "\\" in text or nested or _exists(path)):
        return re.split(r"[/\\]", text.rstrip("/\\"))[-1] if text.rstrip("/\\.~") else path.resolve().name
    return _FOLDERS.sub("", text)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a path, or a text with what no path has
        return False


def is_hub_id(name: str, to_be_made: bool = False) -> bool:
    """Whether ``name`` is of the form owner/name, and no path of this machine.

    Args:
        name: as it was typed, or as a configuration has it.
        to_be_made: it names what is to be written: then it is a folder where ``owner`` is one here, too.
    """
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) is None or name[0] in ".~":
        return False
    return not (Path(name).parent if to_be_made else Path(name)).exists()


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "documents"
