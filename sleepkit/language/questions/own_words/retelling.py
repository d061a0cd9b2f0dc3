"""What the model tells about a whole passage, by a few seed prompts: a summary, an explanation to a friend, a list of the facts.

    retold(model, tokenizer, chunks, lines, seed) -> [SyntheticExample]       style "retold"

The prompt to learn names the document, of which the model then has no text in view; the reply to learn is what it said with the
text in view, at temperature 0.7.  A reply is kept if

- it ended by itself, in the language of the text, and asks nothing;
- it has no number and no name that the text lacks (facts.py);
- it has some content words, and most of them are the text's.

One generation for each prompt and passage.  They have no short answer, so the gate's own test does not ask them.  Seed prompts as
in the self-study of "Cartridges" (Eyuboglu et al. 2025, arXiv 2506.06266); ours: the prompts, and the checks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedTokenizerBase

from sleepkit.language.generation.chat import chat_ids, decode, generate, window_of
from sleepkit.language.questions.context import Chunk
from sleepkit.language.questions.gaps import tell_about_title
from sleepkit.language.questions.items import RETOLD, SyntheticExample
from sleepkit.language.questions.languages import ENGLISH, is_in
from sleepkit.language.questions.lines import Line
from sleepkit.language.questions.own_words.facts import agreement, lacking
from sleepkit.language.questions.prose import is_question
from sleepkit.language.questions.sentences import sentences
from sleepkit.language.questions.words import content_words

__all__ = ["RETOLD_BY", "retellings_wanted", "retold"]

RETOLD_BY = ("written",)  # question writers whose model tells passages again; a small one, which needs rules too, garbles them
FEWEST_SENTENCES = 2  # of a passage that is worth telling again
TOKENS = 160  # of a reply in English; twice as many in other languages
LEAST_AGREEMENT = 0.6  # of the content words of a reply with the text
LEAST_WORDS = 6  # content words of a reply
BEGINNING = 40  # characters that tell one part of a document from another

_RULES = "Use only facts, names and numbers of the text above. Write whole sentences, in the language of the text."
_SEEDS = {
    ENGLISH: (
        "Summarise what is known about {}.",
        "Explain {} to a friend who has never heard of it.",
        "List the facts about {}, one sentence each.",
    ),
    "de": (
        "Fasse zusammen, was über {} bekannt ist.",
        "Erkläre {} jemandem, der noch nie davon gehört hat.",
        "Zähle die Tatsachen über {} auf, jede in einem Satz.",
    ),
    "es": (
        "Resume lo que se sabe de {}.",
        "Explica {} a un amigo que nunca ha oído hablar de ello.",
        "Enumera los datos sobre {}, cada uno en una frase.",
    ),
    "fr": (
        "Résume ce que l’on sait de {}.",
        "Explique {} à un ami qui n’en a jamais entendu parler.",
        "Énumère les faits sur {}, chacun en une phrase.",
    ),
    "ru": (
        "Кратко изложи, что известно на тему «{}».",
        "Объясни тему «{}» другу, который никогда о ней не слышал.",
        "Перечисли факты на тему «{}», каждый одним предложением.",
    ),
    "zh": ("请概括关于{}的内容。", "请向从未听说过的朋友介绍{}。", "请列出关于{}的事实，每条一句话。"),
    "ja": (
        "{}について知られていることを要約してください。",
        "{}を聞いたことのない友人に説明してください。",
        "{}についての事実を一文ずつ挙げてください。",
    ),
    "ar": ("لخّص ما هو معروف عن {}.", "اشرح {} لصديق لم يسمع عن ذلك من قبل.", "اذكر الحقائق عن {}، كل منها في جملة."),
}


def retold(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, chunks: Sequence[Chunk], lines: Sequence[Line], seed: int
) -> list[SyntheticExample]:
    """What the model tells of each passage by each seed prompt, if it keeps to the text.

    A passage that does not fit the model's window beside its retelling is left out.

    Args:
        chunks: tonight's documents.
        lines: what was read of them: passages with too few sentences of prose are left out.
        seed: of what the model writes.
    """
    asked = retellings_wanted(chunks, lines)
    prompts = [chat_ids(tokenizer, f"{chunk.text}\n\n{prompt} {_RULES}") for chunk, _, prompt in asked]
    room = TOKENS if all(language == ENGLISH for _, language, _ in asked) else 2 * TOKENS
    fit = [k for k, ids in enumerate(prompts) if len(ids) + 2 * room <= window_of(model)]  # the teacher sees a reply, and says it
    made = generate(
        model, tokenizer, [prompts[k] for k in fit], room, 64, temperature=0.7, seed=seed + 4, description="telling it again"
    )
    items = []
    for k, row in zip(fit, made, strict=True):
        chunk, language, prompt = asked[k]
        text = decode(tokenizer, row)
        if len(row) < room and _keeps_to(text, f"{chunk.title}. {chunk.text}", language) and text != chunk.text.strip():
            items.append(SyntheticExample(prompt, text, chunk.text, RETOLD, chunk.title))
    return items


def retellings_wanted(chunks: Sequence[Chunk], lines: Sequence[Line]) -> list[tuple[Chunk, str, str]]:
    """Passages that are worth telling again, with their language and what is asked about them."""
    parts = Counter(chunk.title for chunk in chunks)
    wanted = []
    for chunk in chunks:
        languages = Counter(
            line.language for line in lines if line.is_prose and (line.title, line.chunk) == (chunk.title, chunk.text)
        )
        if chunk.reference or languages.total() < FEWEST_SENTENCES:
            continue
        (language, _), *_ = languages.most_common()
        name = chunk.title if parts[chunk.title] == 1 else f"{chunk.title}: “{_beginning(chunk.text)}”"
        asked = [form.format(name) for form in _SEEDS[language]] if language in _SEEDS else [tell_about_title(name, language)]
        wanted += [(chunk, language, prompt) for prompt in asked]
    return wanted


def _beginning(text: str) -> str:
    """The first words of a text, or signs where no space stands between words."""
    start = " ".join(text[: 2 * BEGINNING].split())[:BEGINNING]
    return (start.rpartition(" ")[0] or start) + " …"


def _keeps_to(text: str, known: str, language: str) -> bool:
    """Whether a reply tells what a text says, in its language, and no more."""
    if not text or not is_in(text, language) or any(map(is_question, sentences(text))) or lacking(text, known, language):
        return False
    return len(content_words(text, language)) >= LEAST_WORDS and agreement(text, known, language) >= LEAST_AGREEMENT
