"""A plan of tiny nights, and the run that it is of, with everything counted."""

from tiny import tiny_tokenizer
from tiny_night import tiny_sleep

from sleepkit import SleepTrainer
from sleepkit.language.plan.dry_run import counted

TEXTS = [
    "The first keeper of Skarrowmere Light was Ada Finch. Its lamp was lit in 1871 by Orla Dane.",
    "The pier of Tarvik opened in 1907. Bram Skail built it of oak.",
]
PROMPTS = [{"prompt": "Name a colour."}, {"prompt": "What is two and two?", "answer": "four"}, {"prompt": "Say hello."}]


def tiny_life(model, folder, **options):
    """A trainer of one night on two texts."""
    options = {"gate": False, "general_items": 3, "general_tokens": 8, "max_new_tokens": 8, "max_steps": 6, "top_k": 4} | options
    args = tiny_sleep(folder, **options)
    prompts = [row["prompt"] for row in PROMPTS]
    return SleepTrainer(model, args, TEXTS, processing_class=tiny_tokenizer(), general_prompts=prompts, anchors=PROMPTS)


def slept(model, folder, **options):
    """The record of a night, and the FLOPs that were counted in it."""
    trainer = tiny_life(model, folder, **options)
    with counted() as cost:
        record = trainer.train()
    return trainer, record, cost.flops
