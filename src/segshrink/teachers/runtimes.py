"""Files of networks that aren't PyTorch, opened: ONNX with ONNX Runtime, TFLite with LiteRT."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from segshrink.errors import FileError, MissingExtraError, ModelError
from segshrink.model_description import ModelDescription
from segshrink.prediction.exported import read_description
from segshrink.prediction.runtimes.onnx import onnx_metadata

# What ONNX Runtime calls the types that images and answers may have.
_ONNX_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


@dataclass(frozen=True)
class Port:
    """An input or output of a network.

    Attributes:
        name: Its name in the file.
        shape: Its axes; None for one of any length.
        dtype: Type of its numbers.
        quantization: Scale and zero point, where integers stand for (integer - zero point) * scale.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    quantization: tuple[float, int] | None = None


class Runner(ABC):
    """A network in a file, which takes one batch of images.

    Attributes:
        path: The file.
        key: SHA-256 of everything that was read.
        layout: Order of the axes that files of this kind have as a rule.
        input: What it takes.
        outputs: What it answers, in the file's order.
        description: What the file says about its model, where segshrink wrote it.
    """

    layout: Literal["NCHW", "NHWC"]

    def __init__(
        self, path: Path, key: str, ports: tuple[Port, tuple[Port, ...]], description: ModelDescription | None = None
    ) -> None:
        self.path = path
        self.key = key
        self.input, self.outputs = ports
        self.description = description

    def run(self, images: NDArray[Any], output: int) -> NDArray[Any]:
        """Return one output for a batch in the input's shape and type; a fixed batch size is kept by repetition.

        Raises:
            ModelError: The network fails on this batch, or answers about another number of images.
        """
        step = self.input.shape[0] or len(images)
        parts = []
        for start in range(0, len(images), step):
            part = images[start : start + step]
            missing = step - len(part)
            batch = np.concatenate([part, np.repeat(part[-1:], missing, axis=0)]) if missing else part
            try:
                answer = self._run(np.ascontiguousarray(batch), output)
            except Exception as error:  # the runtimes' exceptions have no common public base
                raise ModelError(
                    f"{self.path} failed on images of shape {batch.shape}: {_first_line(error)}; "
                    "if it takes one size only, say 'size' in its adapter"
                ) from error
            if answer.ndim == 0 or len(answer) != len(batch):
                raise ModelError(
                    f"{self.path} answers {answer.shape} to {len(batch)} image(s); its answer's first axis must count "
                    "the images"
                )
            parts.append(answer[: len(part)])
        return np.concatenate(parts)

    @abstractmethod
    def _run(self, images: NDArray[Any], output: int) -> NDArray[Any]: ...


class OnnxRunner(Runner):
    """An ONNX file, from anybody.

    Weights that it keeps in other files are read from its own folder only.

    Args:
        path: The file.
        threads: Threads of its session.

    Raises:
        FileError: It, or a file with its weights, is missing or unreadable.
        ModelError: It isn't ONNX, can't be run, or doesn't take one batch of images.
    """

    layout = "NCHW"

    def __init__(self, path: Path, *, threads: int) -> None:
        import onnxruntime

        content = _self_contained(_read(path), path)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # its errors come as exceptions
        options.intra_op_num_threads = threads
        # Threads that wait for the next image must not take the time of the training beside them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            # From bytes, so that a file can't make the runtime read other files beside it.
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's exceptions have no common public base
            raise ModelError(
                f"{path} can't be loaded by ONNX Runtime ({_first_line(error)}); export the model again"
            ) from error
        takes, gives = self._session.get_inputs(), self._session.get_outputs()
        _refuse_several_inputs(path, [port.name for port in takes])
        ports = (_onnx_port(takes[0], path), tuple(_onnx_port(port, path) for port in gives))
        super().__init__(path, hashlib.sha256(content).hexdigest(), ports, self._described(path))

    def _run(self, images: NDArray[Any], output: int) -> NDArray[Any]:
        answers: list[NDArray[Any]] = self._session.run([self.outputs[output].name], {self.input.name: images})
        return answers[0]

    def _described(self, path: Path) -> ModelDescription | None:
        text = onnx_metadata(self._session, path)
        return None if text is None else read_description(text, path)


class LiteRtRunner(Runner):
    """A TFLite file.

    Args:
        path: The file.
        threads: Threads of its interpreter.

    Raises:
        FileError: It is missing or unreadable.
        ModelError: It isn't TFLite, can't be run, or doesn't take one batch of images.
        MissingExtraError: LiteRT isn't installed.
    """

    layout = "NHWC"

    def __init__(self, path: Path, *, threads: int) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ModuleNotFoundError as error:
            raise MissingExtraError("a tflite: teacher", "tflite") from error

        content = _read(path)

        def opened(kind: Any) -> Any:
            interpreter = Interpreter(model_content=content, num_threads=threads, experimental_op_resolver_type=kind)
            interpreter.allocate_tensors()
            return interpreter

        try:
            try:
                self._interpreter = opened(OpResolverType.AUTO)
            except RuntimeError:
                # XNNPACK refuses some quantised networks that LiteRT's own kernels run.
                self._interpreter = opened(OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
        except (RuntimeError, ValueError) as error:
            raise ModelError(
                f"{path} can't be loaded by LiteRT ({_first_line(error)}); convert the model again"
            ) from error
        takes, gives = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        _refuse_several_inputs(path, [detail["name"] for detail in takes])
        self._indices = (takes[0]["index"], [detail["index"] for detail in gives])
        self._shape = tuple(int(length) for length in takes[0]["shape"])
        ports = (_litert_port(takes[0], path), tuple(_litert_port(detail, path) for detail in gives))
        super().__init__(path, hashlib.sha256(content).hexdigest(), ports)

    def _run(self, images: NDArray[Any], output: int) -> NDArray[Any]:
        index, answers = self._indices
        if images.shape != self._shape:
            self._interpreter.resize_tensor_input(index, images.shape)
            self._interpreter.allocate_tensors()
            self._shape = images.shape
        self._interpreter.set_tensor(index, images)
        self._interpreter.invoke()
        answer: NDArray[Any] = self._interpreter.get_tensor(answers[output])
        return answer


def _read(path: Path) -> bytes:
    if path.is_dir():
        raise FileError(f"{path} is a folder; give the file of the teacher's network")
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise FileError(f"{path} does not exist; give the file of the teacher's network") from error
    except OSError as error:
        raise FileError(f"can't read {path}: {error.strerror or error}; check its permissions") from error
    if not content:
        raise FileError(f"{path} is empty; copy or download it again")
    return content


def _self_contained(content: bytes, path: Path) -> bytes:
    """Return an ONNX file with the weights that it keeps in other files of its folder."""
    try:
        import onnx
        from onnx.external_data_helper import load_external_data_for_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("an onnx: teacher", "train") from error
    try:
        model = onnx.load_from_string(content)
    except Exception as error:  # what protobuf raises isn't public
        raise ModelError(f"{path} is not an ONNX file ({_first_line(error)}); export the model again") from error
    if b"location" not in content:  # the key under which a tensor names its file
        return content
    try:
        # It refuses files outside of the folder.
        load_external_data_for_model(model, str(path.parent))
        whole: bytes = model.SerializeToString()
    except Exception as error:  # what onnx raises depends on its version
        raise FileError(
            f"{path} keeps weights in other files, which can't be read ({_first_line(error)}); put them beside it, or "
            "save the model as one file"
        ) from error
    return whole


def _refuse_several_inputs(path: Path, names: list[str]) -> None:
    if len(names) != 1:
        listed = f": {', '.join(names)}" if names else ""
        raise ModelError(f"{path} takes {len(names)} inputs{listed}; a teacher takes images and nothing else")


def _onnx_port(port: Any, path: Path) -> Port:
    if port.type not in _ONNX_TYPES:
        raise ModelError(f"{path}: '{port.name}' is of type {port.type}, which no image or map of classes has")
    shape = tuple(length if isinstance(length, int) and length > 0 else None for length in port.shape)
    return Port(port.name, shape, np.dtype(_ONNX_TYPES[port.type]))


def _litert_port(detail: dict[str, Any], path: Path) -> Port:
    # The signature has -1 for lengths that the shape, once allocated, gives as 1.
    signature = detail.get("shape_signature", ())
    lengths = signature if len(signature) else detail["shape"]
    quantization = detail["quantization_parameters"]
    scales, zeros = quantization["scales"], quantization["zero_points"]
    if len(scales) > 1:
        raise ModelError(f"{path}: '{detail['name']}' has a scale for each channel; one for all is needed")
    return Port(
        detail["name"],
        tuple(int(length) if length > 0 else None for length in lengths),
        np.dtype(detail["dtype"]),
        (float(scales[0]), int(zeros[0])) if len(scales) else None,
    )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
