"""Let a model remember your chats with it: what you told it, and what was answered.

    python examples/chats.py

A chat is a list of messages, as TRL and chat programs have them.  Each is one night.  Here three are written out; a folder of
JSON lines, {"messages": [...]} a row, is read in the same way.
"""

from sleepkit import SleepConfig, SleepTrainer

CHATS = [
    [
        {"role": "user", "content": "My sister Ines moved to Tarvik in May. She builds boats there."},
        {"role": "assistant", "content": "How lovely! What kind of boats does Ines build?"},
        {"role": "user", "content": "Small ferries of larch. Her workshop is called Brisa."},
    ],
    [
        {"role": "user", "content": "The code of the garden gate is 4711, in case I forget."},
        {"role": "assistant", "content": "I will remember that the code of your garden gate is 4711."},
    ],
]


def main(output_dir: str = "runs/chats", model: str = "HuggingFaceTB/SmolLM2-135M-Instruct", **options: object) -> list[str]:
    """Sleep on both chats and ask about them; returns the answers."""
    trainer = SleepTrainer(model=model, args=SleepConfig(output_dir=output_dir, **options), train_dataset=CHATS)
    trainer.train()
    questions = ["Where does my sister Ines live?", "What is the code of the garden gate?"]
    answers = trainer.ask(questions)
    for question, before, after in zip(questions, trainer.ask(questions, before=True), answers, strict=True):
        print(f"{question}\n  before: {before}\n  after:  {after}")
    return answers


if __name__ == "__main__":
    main()
