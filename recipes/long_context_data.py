"""Hide the stories of bAbI in a text longer than a model's window, in parts of a night each.

python recipes/long_context_data.py --stories babi.jsonl.gz --filler book.txt.gz --output runs/long_context.jsonl
accelerate launch recipes/sleep.py --config recipes/configs/sleep/long_context_smollm2_cpu.yaml --dataset runs/long_context.jsonl
"""

import sys
from pathlib import Path

from sleepkit.cli import guard
from sleepkit.errors import SleepkitError
from sleepkit.language.long_context import shown, write_long_context
from sleepkit.runs.arguments.command_line import Parser, check_folder, whole_number


def main() -> None:
    parser = Parser(prog="recipes/long_context_data.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--stories", type=Path, required=True, help="bAbI as .jsonl[.gz], {task, lines: [{n, t} | {n, q, a, sup}]}"
    )
    parser.add_argument("--filler", type=Path, required=True, help="a text to hide them in, .txt[.gz]")
    parser.add_argument("--output", type=Path, required=True, help=".jsonl to write")
    parser.add_argument("--task", default="qa1", help="of bAbI: qa1 to qa3, qa6 to qa14")
    parser.add_argument("--questions", type=whole_number(1), default=16, help="stories, one question each")
    parser.add_argument("--parts", type=whole_number(1), default=9, help="of the text, one for each night")
    parser.add_argument("--words", type=whole_number(1), default=750, help="of filler in a part")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of stories, places and filler")
    parser.add_argument("--everybody", action="store_true", help="ask where each person is, not the stories' own questions")
    given = parser.values(sys.argv[1:])
    if given["output"].is_dir():
        raise SleepkitError(f"--output is {given['output']}, a folder; give a .jsonl file")
    check_folder("output", given["output"].parent)
    print(shown(write_long_context(**given)))


if __name__ == "__main__":
    sys.exit(guard(main))
