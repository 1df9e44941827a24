"""The model card: what a model is, what was measured, and how to run it, on one page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segshrink import formatting
from segshrink.classes import format_color
from segshrink.export.interface import ExportedFile
from segshrink.export.stac import band_names
from segshrink.model_description import ModelDescription
from segshrink.run_records import EvaluationRecord, ProfileRecord

# By it a card of ours is known again, so that nobody's own page is replaced.
MARK = "<!-- model card written by segshrink -->"


def model_card(
    description: ModelDescription,
    files: Sequence[ExportedFile],
    *,
    name: str,
    parameters: int,
    evaluation: EvaluationRecord | None = None,
    profile: ProfileRecord | None = None,
    checked: str | None = None,
) -> str:
    """Return the card as Markdown.

    Args:
        description: The model's description.
        files: What was exported.
        name: Name of the model.
        parameters: How many it has.
        evaluation: Its accuracy, where it was evaluated.
        profile: Its costs, where it was measured.
        checked: The processor that the file itself was scored and timed on, where that was done.
    """
    names = ", ".join(_plain(text) for text in description.classes.names)
    parts = [
        MARK,
        f"# {_plain(name)}",
        f"Tells {len(description.classes)} classes apart in every pixel of an image: {names}.",
        _facts(description, parameters, checked),
        "## Files",
        *(_interface(description, file) for file in files),
        "## Classes",
        _classes(description, evaluation),
        "## Measured",
        _numbers(evaluation, profile),
        "## Use",
        *(_use(description, file) for file in _to_show(files)),
    ]
    return "\n\n".join(parts) + "\n"


def _facts(description: ModelDescription, parameters: int, checked: str | None) -> str:
    rows = [
        ("Network", f"{description.id}, {parameters:,} parameters"),
        ("Bands", ", ".join(_plain(band) for band in band_names(description))),
        *((("Ground resolution", f"{description.resolution:g} m per pixel"),) if description.resolution else ()),
        *((("Checked on", _plain(checked)),) if checked else ()),
    ]
    return _table(("", ""), rows)


def _interface(description: ModelDescription, file: ExportedFile) -> str:
    given = {"logits": "(1, side, side, C) float32"} if file.tiles else _OUTPUTS
    shape = f"one square tile (1, side, side, {description.bands})"
    if not file.tiles:
        shape = f"`images` (N, {description.bands}, H, W), any N, H and W,"
    rows = [
        *(("File", f"{path.name}, {path.stat().st_size / 1e3:,.0f} kB") for path in file.parts),
        ("Input", f"{shape} {file.pixels(description)}, raw pixel values; normalized inside"),
        *(("Output", f"`{output}` {given[output]}") for output in file.outputs),
    ]
    return _table(("", ""), rows)


_OUTPUTS = {
    "logits": "(N, C, H, W) float32",
    "probabilities": "(N, C, H, W) float32, adding up to 1 over the classes",
    "classes": "(N, H, W) uint8, the number of the most likely class",
}


def _to_show(files: Sequence[ExportedFile]) -> list[ExportedFile]:
    """Return the files whose use is shown: an .onnx before others that are used alike, and each kind once."""
    kinds = {(file.tiles, file.outputs, file.float_pixels): file for file in reversed(files)}
    kinds |= {(f.tiles, f.outputs, f.float_pixels): f for f in reversed(files) if f.path.suffix == ".onnx"}
    return [file for file in files if file in kinds.values()]


def _classes(description: ModelDescription, evaluation: EvaluationRecord | None) -> str:
    classes = description.classes
    iou = evaluation.scores.iou if evaluation else ()
    scored = len(iou) == len(classes)
    rows = []
    for number, (name, color) in enumerate(zip(classes.names, classes.colors, strict=True)):
        row = (str(number), _plain(name), f"`{format_color(color)}`")
        rows.append((*row, _percent(iou[number])) if scored else row)
    return _table(("Number", "Class", "Colour", "IoU (%)")[: 4 if scored else 3], rows)


def _numbers(evaluation: EvaluationRecord | None, profile: ProfileRecord | None) -> str:
    rows = [*(_accuracy(evaluation) if evaluation else ()), *(_costs(profile) if profile else ())]
    if not rows:
        return "Nothing yet; `segshrink evaluate` and `segshrink benchmark` measure it."
    leaking = evaluation is not None and evaluation.leaking
    warning = "\n\nJudged pixels lie beside training pixels, so the mIoU is too good." if leaking else ""
    return _table(("", "", "Measured with"), rows) + warning


def _accuracy(evaluation: EvaluationRecord) -> list[tuple[str, str, str]]:
    interval = evaluation.interval
    spread = f" ({', '.join(_percent(end) for end in interval.mean_iou)})" if interval else ""
    where = f"PyTorch, every labeled pixel of split '{evaluation.split}' of {_plain(evaluation.data)}"
    return [("mIoU (%, 95 % interval)", f"{_percent(evaluation.scores.mean_iou)}{spread}", where)]


def _costs(profile: ProfileRecord) -> list[tuple[str, str, str]]:
    size = profile.input[-1] if profile.input else formatting.NOTHING
    image = f"PyTorch fp32, one image of {size} × {size}"
    rows = []
    if profile.latency_ms is not None:
        share = profile.load.others if profile.load else None
        others = "" if share is None else f"; other programs took {formatting.percent(share)} of the cores"
        doubt = ", so this is too long" if profile.busy else ""
        machine = f"{_plain(profile.machine.cpu or '')}, {profile.machine.threads} thread(s)"
        rows.append(("Latency (ms)", f"{profile.latency_ms.median:.1f}", f"{image}, {machine}{others}{doubt}"))
    if profile.peak_memory_mb is not None:
        rows.append(("Peak memory (MB)", f"{profile.peak_memory_mb:.0f}", f"{image}, the whole process"))
    if profile.macs is not None:
        rows.append(("Multiply-accumulates (G)", f"{profile.macs / 1e9:.2f}", image))
    return rows


def _use(description: ModelDescription, file: ExportedFile) -> str:
    if file.tiles:
        return f"`segshrink predict {file.path.name} image.png -o map.png` runs it with LiteRT, tile by tile."
    output = next(name for name in ("classes", "logits", "probabilities") if name in file.outputs)
    model = file.path
    if description.bands == 3 and description.dtype == "uint8":
        reading = ("from PIL import Image", 'np.asarray(Image.open("image.png").convert("RGB"))')
    else:
        reading = ("", 'np.load("image.npy")')
    answer = "answer[0]" if output == "classes" else "answer[0].argmax(0)"
    lines = [
        "import numpy as np",
        f"import {'onnxruntime' if model.suffix == '.onnx' else 'openvino'}",
        *((reading[0],) if reading[0] else ()),
        "",
        *_session(model),
        f"image = {reading[1]}  # (H, W, {description.bands})",
        f"batch = np.ascontiguousarray(image.transpose(2, 0, 1)[np.newaxis], dtype=np.{file.pixels(description)})",
        *_running(model, output),
        f"classes = {answer}  # (H, W), numbers of the table above",
    ]
    program = "\n".join(lines)
    return f"```python\n{program}\n```"


def _session(model: Path) -> list[str]:
    if model.suffix == ".onnx":
        return [f'session = onnxruntime.InferenceSession("{model.name}", providers=["CPUExecutionProvider"])']
    return [f'compiled = openvino.compile_model("{model.name}", "CPU")']


def _running(model: Path, output: str) -> list[str]:
    if model.suffix == ".onnx":
        return [f'(answer,) = session.run(["{output}"], {{"images": batch}})']
    return [f'answer = compiled({{"images": batch}})["{output}"]']


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def _plain(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    flat = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in flat)
