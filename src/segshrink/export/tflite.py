"""Writing a model for LiteRT (TFLite): tiles of raw pixels in, logits out."""

from __future__ import annotations

import copy
import json
import math
import zipfile
from pathlib import Path

import torch
from torch import nn

from segshrink.errors import ModelError, first_line
from segshrink.export.metadata import refuse_tiles
from segshrink.export.parity import check_parity
from segshrink.extras import needing, quiet_library
from segshrink.files import replacing
from segshrink.models import SegmentationModel
from segshrink.prediction.runtimes.litert import METADATA_FILE, LiteRtBackend
from segshrink.working_size import pixels_of_stride, zoom


def export_tflite(
    model: SegmentationModel,
    path: str | Path,
    *,
    tile: int = 512,
    float_pixels: bool = False,
    overwrite: bool = False,
) -> Path:
    """Write a model as TFLite and prove that LiteRT gives what PyTorch gives.

    The file takes ``images`` (1, tile, tile, bands), raw uint8 pixel values (float32 for models of other pixel types),
    and gives logits (1, tile, tile, C) float32; the converter (litert-torch 0.10) can't leave sizes open.
    Resizing to the working size and normalization are part of the graph. The model's description stands as JSON in a
    zip archive at the file's end, where TFLite keeps associated files.

    Args:
        model: Left as it is, whatever its device and mode.
        path: File to write, ending in ``.tflite``.
        tile: Side of a tile in pixels at the working size; taken up to the next multiple of the network's stride, and
            twice that at least.
        float_pixels: Take float32 pixel values, still raw ones, which can be quantized from end to end.
        overwrite: Replace a file that this program did not write.

    Returns:
        The path.

    Raises:
        ModelError: The network can't be converted, sees whole images only, or differs from PyTorch by more than a
            thousandth of the largest logit. No file is left then.
        FileError: The file can't be written.
        MissingExtraError: litert-torch or LiteRT isn't installed.
    """
    path = Path(path)
    if path.suffix.lower() != ".tflite":
        raise ModelError(f"{path} must end in .tflite, so that it is recognized when it is opened")
    reference = copy.deepcopy(model).cpu().eval()
    description, resize = reference.description, reference.description.resize
    refuse_tiles(description, "tflite")
    stride = pixels_of_stride(resize, description.stride)
    side = max(math.ceil(tile / zoom(resize) / stride), 2) * stride
    with replacing(path, overwrite=overwrite) as temporary:
        _convert(reference, side, temporary, float_pixels=float_pixels)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(METADATA_FILE, json.dumps(description.to_dict()))
        backend = LiteRtBackend(temporary, threads=torch.get_num_threads())
        check_parity(reference, backend, final=path, sizes=((1, side, side), (3, side, side)))
    return path


class _Tile(nn.Module):
    """What is converted: (1, tile, tile, bands) raw pixels to (1, tile, tile, C) logits."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(images.permute(0, 3, 1, 2))
        return logits.permute(0, 2, 3, 1)


def _convert(model: SegmentationModel, side: int, path: Path, *, float_pixels: bool) -> None:
    with needing("exporting to TFLite", "litert"):
        import litert_torch
    description = model.description
    pixels = torch.uint8 if description.dtype == "uint8" and not float_pixels else torch.float32
    example = torch.zeros(1, side, side, description.bands, dtype=pixels)
    try:
        with quiet_library():
            litert_torch.convert(_Tile(model).eval(), (example,)).export(str(path))
    except Exception as error:  # the converter raises what the network's operators raise
        reason = first_line(error)
        raise ModelError(
            f"model '{description.id}' can't be expressed in TFLite ({reason}); choose another model, or ONNX"
        ) from error
