"""``segshrink quantize``: a model in 8-bit integers, measured beside float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segshrink.cli._options import AsJson, Overwrite, OwnData, Trust, words

if TYPE_CHECKING:
    from segshrink.compression.quantization import QuantizationResult


def quantize(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Run folder, model folder, Keras or ONNX file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    data: OwnData = None,
    runtime: Annotated[
        str, typer.Option(help="Some of onnxruntime, openvino and litert, separated by commas.")
    ] = "onnxruntime,openvino",
    max_drop: Annotated[
        float, typer.Option(help="Points of mIoU that int8 may lose; sensitive layers stay float.")
    ] = 1.0,
    images: Annotated[int, typer.Option(help="Tiles of 512 x 512 pixels to calibrate with.", min=1)] = 64,
    quantization_aware_distillation: Annotated[
        bool,
        typer.Option(
            "--quantization-aware-distillation",
            "--qad",
            help="Train for 8 bits, with the float32 model as teacher, in any case.",
        ),
    ] = False,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", "-r", help="How to train for 8 bits where int8 loses too much; a run folder knows its own."
        ),
    ] = None,
    trust: Trust = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write a model in 8-bit integers.

    Calibrates on tiles of the training images, and compares mIoU, agreement, size and latency with float32 on the
    validation images. Layers that lose accuracy in 8 bits stay in float; where that doesn't suffice, a run's model is
    trained for 8 bits.

    Inside OUT: fp32.onnx, int8.onnx, int8.xml with int8.bin, quantization.json; with --runtime litert int8.tflite,
    which takes and gives uint8 and computes in integers alone, for Coral, NPUs and phones.
    """
    from segshrink.cli._console import print_json, progress_bars
    from segshrink.cli._trust import opened_if_trusted, trusting
    from segshrink.workflows.quantize import quantize as quantize_model

    with progress_bars() as progress, trusting(model, trust=trust):
        result = quantize_model(
            opened_if_trusted(model, trust=trust),
            data,
            out=out,
            runtimes=words(runtime),
            max_drop=max_drop,
            images=images,
            recipe=recipe,
            quantization_aware_distillation=quantization_aware_distillation,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)


def _print(result: QuantizationResult) -> None:
    from segshrink.cli._console import empty_table, out_console
    from segshrink.formatting import percent

    table = empty_table("", "mIoU", "drop", "agreement", "size", "latency", "load")
    for row in result.rows:
        table.add_row(
            f"{row.precision} {row.runtime}",
            f"{row.mean_iou:.3f}",
            f"{row.drop:+.2f}" if row.precision == "int8" else "",
            f"{row.agreement:.2%}",
            f"{row.bytes / 1e6:.2f} MB",
            f"{row.latency_ms:.1f} ms",
            percent(row.load.share),
        )
    for refusal in result.refused:
        table.add_row(f"{refusal.precision} {refusal.runtime}", "left out")
    console = out_console()
    console.print(table)
    console.print(result.verdict)
    console.print(f"{result.chosen} (runtime {result.runtime})")
