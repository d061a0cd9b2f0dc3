"""What mkdocs does besides: pages that lie outside docs/, and the list of public names.

CHANGELOG.md, benchmarks/results/*    are pages of the site too; links to them begin with ../ in docs/
<!-- public names -->                 becomes a reference of every name in `sleepkit.__all__`, by where it is defined
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
OUTSIDE = ("CHANGELOG.md", "benchmarks/results/*.md", "benchmarks/results/*.png")
ROOMS = {
    "sleepkit.train": "Trainers",
    "sleepkit.cycle": "The cycle and its gate",
    "sleepkit.language": "Language models",
    "sleepkit.vision": "Images",
    "sleepkit": "Errors",
}
"""Module -> title of its part of the reference; the first that a name's module begins with counts."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and pictures from outside docs/."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links of docs/ lead to them, and write the reference."""
    if page.file.src_uri == "CHANGELOG.md":
        return markdown
    markdown = re.sub(r"\]\(\.\./(?=CHANGELOG\.md|benchmarks/results/)", "](", markdown)
    return markdown.replace("<!-- public names -->", reference()) if "<!-- public names -->" in markdown else markdown


def reference() -> str:
    """A section for each room, with an entry for each public name."""
    import sleepkit

    found: dict[str, list[str]] = {title: [] for title in ROOMS.values()}
    for name in sleepkit.__all__:
        if not name.startswith("__"):
            module = getattr(sleepkit, name).__module__
            room = next(room for room in ROOMS if module.startswith(room))
            found[ROOMS[room]].append(f"{module}.{name}")
    parts = []
    for title, names in found.items():
        if names:
            parts += [f"## {title}", *(f"::: {name}" for name in names)]
    return "\n\n".join(parts)
