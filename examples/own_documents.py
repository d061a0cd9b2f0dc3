"""Let a model read your documents, sleep, and answer about them with nothing in its context.

    python examples/own_documents.py notes/

The folder may hold Markdown, text, HTML, PDF, Word or EPUB files, code, and rows or chats as JSON lines.  Run it again after you
have added or changed files: only those are slept on.
"""

import sys

from sleepkit import SleepConfig, SleepTrainer


def main(
    notes: str = "notes/",
    output_dir: str = "runs/notes",
    model: str = "HuggingFaceTB/SmolLM2-135M-Instruct",
    question: str = "What do you know?",
    **options: object,
) -> SleepTrainer:
    """Sleep on each document of a folder and ask; returns the trainer."""
    trainer = SleepTrainer(model=model, args=SleepConfig(output_dir=output_dir, **options), train_dataset=notes)
    record = trainer.train()
    for night in trainer.nights:
        print(f"night {night.number}: {'kept' if night.kept else 'undone'} ({night.reason})")
    print(f"own questions right: {record.metrics['self_test_before']:.2f} before, {record.metrics['self_test_after']:.2f} after")
    print("before sleep:", trainer.ask(question, before=True))
    print("after sleep: ", trainer.ask(question))
    return trainer


if __name__ == "__main__":
    main(*sys.argv[1:])
