"""The record of ``survival.py`` and its page: several processes write them, each its own rows."""

from __future__ import annotations

import hashlib
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from locks import locked
from segshrink import __version__
from segshrink.files import read_json, write_json, write_text
from segshrink.machine import describe_machine


def lock_of(path: Path, part: str) -> Path:
    """Return the lock of a part of a record."""
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"segshrink-survival-{place}-{part}.lock"


def rows_of(path: Path) -> dict[str, Any]:
    """Return what was tried so far."""
    rows: dict[str, Any] = read_json(path)["rows"] if path.exists() else {}
    return rows


def record(path: Path, row: dict[str, Any]) -> None:
    """Write a row beside those of other processes."""
    with locked(lock_of(path, "record"), wait=True):
        found = {
            "segshrink": __version__,
            "machine": describe_machine(threads=1),
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "rows": {**rows_of(path), f"{row['job']}: {row['fault']}": row},
        }
        write_json(path, found)
        write_page(path, found)


def write_page(path: Path, found: dict[str, Any]) -> None:
    """Write the page of a record beside it."""
    fuzzed = path.with_name("fuzz.json")
    write_text(path.with_suffix(".md"), to_markdown(found, read_json(fuzzed) if fuzzed.exists() else None))


def to_markdown(record: dict[str, Any], fuzzed: dict[str, Any] | None) -> str:
    """Return the results as a Markdown page, with what ``fuzz.py`` found."""
    machine, rows = record["machine"], record["rows"]
    done, lost = (sum(row[name] for row in rows.values()) for name in ("attempts", "lost"))
    lines = [
        "# What survives",
        "",
        f"Written by `python benchmarks/survival.py`, {record['updated']}, segshrink {record['segshrink']}, "
        f"{machine['cpu']}, Python {machine['python']}. {done} attempts, {done - lost} survived, {lost} lost; the "
        "script says what is done to a command and what has to be equal afterwards.",
        "",
        "| command | fault | attempts | survived | lost |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in rows.values():
        kept = row["attempts"] - row["lost"]
        lines.append(f"| {row['job']} | {row['fault']} | {row['attempts']} | {kept} | {row['lost']} |")
    told = [f"- {row['job']}, {row['fault']}: {how}" for row in rows.values() for how in row["how"]]
    if told:
        lines += ["", "## Lost", "", *told]
    told = [f"- {row['job']}, {row['fault']}: {how}" for row in rows.values() for how in row.get("before", ())]
    if told:
        lines += ["", "## Lost before a mend, and tried anew", "", *told]
    if fuzzed is not None:
        rows_read = fuzzed["rows"].values()
        inputs, faults = sum(row["inputs"] for row in rows_read), sum(len(row["faults"]) for row in rows_read)
        lines += [
            "",
            "## Damaged files",
            "",
            f"Atheris gave readers {inputs:,} damaged files in {fuzzed['minutes']:g} minutes and found {faults} "
            "kinds of faults ([fuzz.md](fuzz.md)).",
        ]
    return "\n".join([*lines, ""])
