"""What of a source was not read as it is, said in one line for each kind: nothing is skipped or replaced silently.

remarks.add("skipped, as no image", "train/cat/Thumbs.db");  remarks.say()
"""

from __future__ import annotations

from accelerate import PartialState

__all__ = ["Remarks"]

SHOWN = 5  # places that a line names


class Remarks:
    """Kinds of what was left out, each with the places where it was."""

    def __init__(self) -> None:
        self.places: dict[str, list[str]] = {}

    def add(self, kind: str, place: str) -> None:
        """Note one more place; ``kind`` says what happened there."""
        self.places.setdefault(kind, []).append(place)

    def say(self) -> None:
        """Print a line for each kind, on the main process."""
        if PartialState().is_main_process:
            for kind, places in self.places.items():
                shown = ", ".join(places[:SHOWN]) + (f" and {len(places) - SHOWN} more" if len(places) > SHOWN else "")
                print(f"{kind}: {shown}".encode("utf-8", "backslashreplace").decode())  # names of files may be no text
