"""``segshrink benchmark``: models beside each other on every runtime of this machine."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segshrink.cli._options import AsJson, Overwrite, Split, Trust, words
from segshrink.machine import LARGEST_THREADS, default_threads

if TYPE_CHECKING:
    from rich.text import Text

    from segshrink.profiling.results import BenchmarkResult


def benchmark(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...", help="Run folders, banks, model folders, .onnx, .xml, .tflite or Keras files."
        ),
    ],
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="Data set description (YAML), to score each too.")
    ] = None,
    split: Split = "val",
    runtime: Annotated[
        str | None,
        typer.Option(help="torch, torch-compile, onnxruntime, openvino, litert, with commas; all that suit."),
    ] = None,
    precision: Annotated[str, typer.Option(help="Of PyTorch and OpenVINO: auto, 32, bf16, with commas.")] = "auto",
    size: Annotated[int, typer.Option(help="Side of the images in pixels.", min=1)] = 512,
    batch: Annotated[str, typer.Option(help="Images at once, with commas.")] = "1,8",
    threads: Annotated[str, typer.Option(help="Numbers of threads, with commas.")] = "1,all",
    runs: Annotated[int, typer.Option(help="Timed runs of each.", min=5)] = 20,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for benchmark.json, .md and .png.")] = None,
    average: Annotated[
        bool, typer.Option("--average", help="Also measure the mean of all models as one, as of a bank's teachers.")
    ] = False,
    trust: Trust = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure models on this machine's CPU.

    Size, latency, throughput, memory and, with data, mIoU on every runtime. Folders and Keras files are exported for
    ONNX Runtime and OpenVINO.
    """
    from segshrink.cli._console import out_console, print_json, progress_bars
    from segshrink.cli._trust import trusting
    from segshrink.files import writing
    from segshrink.folder_lock import claimed
    from segshrink.profiling.benchmark import benchmark as measure_models
    from segshrink.profiling.results import check_place, write_results

    batches, thread_counts = _counts(batch, option="--batch"), _counts(threads, option="--threads")
    with nullcontext() if out is None else claimed(out):
        if out is not None:
            check_place(out, overwrite=overwrite)
        with progress_bars() as progress, trusting(*models, trust=trust):
            result = measure_models(
                models,
                runtimes=words(runtime) if runtime else None,
                precisions=words(precision),
                data=data,
                split=split,
                size=size,
                runs=runs,
                batches=batches,
                threads=thread_counts,
                average=average,
                trust=trust,
                progress=partial(progress, "benchmark"),
            )
        if as_json:
            print_json(result.to_dict())
        else:
            _print(result)
        if out is not None:
            with writing(out):
                files = write_results(result, out, overwrite=overwrite)
            for file in files if not as_json else ():
                out_console().print(str(file))


def _counts(text: str, *, option: str) -> list[int]:
    """Read numbers from 1, with commas; "all" is the cores this process may use, or ``OMP_NUM_THREADS`` if less.

    Raises:
        BadParameter: Something else was found.
    """
    numbers_or_none = [
        default_threads() if word == "all" and option == "--threads" else _number(word) for word in words(text)
    ]
    most = LARGEST_THREADS if option == "--threads" else sys.maxsize
    numbers = [number for number in numbers_or_none if number is not None and 1 <= number <= most]
    if not numbers or len(numbers) < len(numbers_or_none):
        every = f" to {most} or all" if option == "--threads" else ""
        raise typer.BadParameter(f"'{text}' is no list of numbers from 1{every}, such as 1,8", param_hint=option)
    return list(dict.fromkeys(numbers))


def _print(result: BenchmarkResult) -> None:
    """Print the table, what it shows, and what has to be said beside it."""
    from segshrink.cli._console import empty_table, out_console, tell
    from segshrink.profiling.results import subtitle, table

    headings, rows = table(result)
    shown = empty_table(*headings, left=2)
    before = None
    for cells in rows:
        if before is not None and cells[0] != before:
            shown.add_section()
        name = "" if cells[0] == before else cells[0]
        shown.add_row(name, *(_cell(cell) for cell in cells[1:]))
        before = cells[0]
    console = out_console()
    console.print(shown)
    console.print(subtitle(result), style="dim")
    for message in result.messages:
        tell(message)


def _cell(text: str) -> Text:
    from rich.text import Text

    first, _, second = text.partition("\n")
    return Text.assemble(first, (f"\n{second}", "dim") if second else "")


def _number(word: str) -> int | None:
    try:
        return int(word)
    except ValueError:
        return None
