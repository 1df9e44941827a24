"""Where results go that depend on the processor: beside those of other processors, named after theirs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from segshrink.files import write_json, write_text

RESULTS = Path(__file__).resolve().parent / "results"


def results_stem(folder: Path, name: str, cpu: str) -> Path:
    """Return the path, without a suffix, of one processor's results.

    Args:
        folder: Where results are collected.
        name: What was measured, such as "scene".
        cpu: The processor as `segshrink.machine.describe_machine` names it.
    """
    return folder / f"{name}-{re.sub(r'[^a-z0-9]+', '-', cpu.lower()).strip('-')}"


def write_results(name: str, record: dict[str, Any], to_markdown: Callable[[dict[str, Any]], str]) -> None:
    """Write a record as JSON and as a Markdown page among the results, and print the page.

    Args:
        name: What was measured.
        record: What is written; "machine" is `segshrink.machine.describe_machine`'s.
        to_markdown: Makes the page of it.
    """
    stem, page = results_stem(RESULTS, name, record["machine"]["cpu"]), to_markdown(record)
    write_json(Path(f"{stem}.json"), record)
    write_text(Path(f"{stem}.md"), page)
    print(page)
