"""``segshrink benchmark``: models beside each other on every runtime of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from segshrink.cli._options import AsJson, Overwrite


def benchmark(
    models: Annotated[
        list[Path],
        typer.Argument(
            metavar="MODEL...",
            help="Run folders, model folders, .onnx, .xml or .tflite files.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Data set description (YAML), to score each too.", show_default=False),
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option("--split", help="Part of the data set.")] = "val",
    runtime: Annotated[
        str | None,
        typer.Option(
            "--runtime",
            help="torch, torch-compile, onnxruntime, openvino, litert, with commas; all that suit.",
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="Of PyTorch and OpenVINO: auto, 32, bf16, with commas.")
    ] = "auto",
    size: Annotated[int, typer.Option("--size", help="Side of the images in pixels.", min=1)] = 512,
    batch: Annotated[str, typer.Option("--batch", help="Images at once, with commas.")] = "1,8",
    threads: Annotated[str, typer.Option("--threads", help="Numbers of threads, with commas.")] = "1,all",
    runs: Annotated[int, typer.Option("--runs", help="Timed runs of each.", min=5)] = 20,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for benchmark.json, .md and .png.", show_default=False),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Measure models on this machine's CPU.

    Size, latency, throughput, memory and, with data, mIoU on every runtime. Folders are exported for
    ONNX Runtime and OpenVINO.
    """
    from segshrink.cli._benchmark import counts, print_benchmark, words
    from segshrink.cli._console import out_console, print_json, progress_bar
    from segshrink.cli._errors import writing
    from segshrink.profiling.benchmark import benchmark as measure_models
    from segshrink.profiling.results import check_place, write_results
    from segshrink.profiling.table import to_markdown

    batches, thread_counts = counts(batch, option="--batch"), counts(threads, option="--threads")
    if out is not None:
        check_place(out, overwrite=overwrite)
    with progress_bar("benchmark") as advance:
        result = measure_models(
            models,
            runtimes=words(runtime) if runtime else None,
            precisions=words(precision),
            data=data,
            split=split,
            size=size,
            batches=batches,
            threads=thread_counts,
            runs=runs,
            progress=advance,
        )
    if as_json:
        print_json(result.to_dict())
    else:
        print_benchmark(result)
    if out is not None:
        with writing(out):
            files = write_results(result, out, markdown=to_markdown(result), overwrite=overwrite)
        for file in files if not as_json else ():
            out_console().print(str(file), markup=False)
