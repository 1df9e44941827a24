"""A network of torch as a teacher, and what its adapter puts around a foreign one."""

from __future__ import annotations

import copy
import hashlib
import json
from contextlib import suppress
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from segshrink.classes import ClassMap
from segshrink.config import Adapter
from segshrink.errors import ConfigError, ModelError, SegshrinkError, one_line
from segshrink.losses.shapes import resized
from segshrink.model_description import Normalization
from segshrink.models import SegmentationModel
from segshrink.models.dry_run import bands_of, dry_run
from segshrink.models.outputs import chosen_output, tell_choice
from segshrink.prediction.formats import check_order
from segshrink.prediction.pixel_units import check_units
from segshrink.prediction.probabilities import channels_for, check_probabilities, tell_probabilities
from segshrink.teachers.fixed_image import answer_to_fixed_image
from segshrink.teachers.mapping import ClassMapping
from segshrink.teachers.probabilities import one_hot_logits, to_log_probabilities, two_class_logits
from segshrink.teachers.resizing import TeacherResizing
from segshrink.teachers.teacher import Teacher
from segshrink.working_size import Resize, depends_on_image, in_words

# Sides in pixels of the images that tell how many channels a network gives: most take any.
_SIZES = (64, 224, 512)
# Sides are padded to multiples of these, in turn, where a network refuses others.
_STRIDES = (32, 128)


class AdaptedNetwork(nn.Module):
    """A network that gets its pixels, and whose answer is read, as its adapter says.

    Args:
        network: The network.
        adapter: What is said about it; what it answers may be logits or probabilities (N, K, h, w), or with ``output``
            "labels" class indices (N, h, w) or (N, 1, h, w).
        bands: Bands of the images.
        classes: K; needed for labels.
        scaled: Whether pixels are scaled here; a ``SegmentationModel`` does it itself.
        name: How messages call it.
        origin: What its answers depend on besides its class and weights, such as the arguments it was made with.

    Raises:
        ConfigError: The adapter contradicts itself or the images.
    """

    def __init__(
        self,
        network: nn.Module,
        adapter: Adapter,
        *,
        bands: int,
        classes: int,
        scaled: bool = True,
        name: str = "the teacher",
        origin: str = "",
    ) -> None:
        super().__init__()
        check_order(adapter, bands, name)
        self.network, self.adapter, self.bands, self.name, self.origin = network, adapter, bands, name, origin
        self._classes, self._told = classes, False
        self._scaling = (adapter if scaled else Adapter()).normalization(bands)
        size = (adapter.size, adapter.size) if isinstance(adapter.size, int) else adapter.size
        self.resizing = TeacherResizing.of(adapter, size)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (N, K, H, W) at the images' size.

        Args:
            images: Raw pixel values (N, bands, H, W).

        Raises:
            ModelError: The network doesn't answer with a map of classes.
        """
        pixels, device = images.float(), images.device
        if self.resizing.size is None:
            return self._of_any_size(pixels)

        def answer(tiles: NDArray[Any]) -> NDArray[np.float32]:
            scores: NDArray[np.float32] = self._scores(torch.from_numpy(tiles).to(device)).detach().cpu().numpy()
            return scores

        # Images are brought to another size on the CPU.
        return torch.from_numpy(self.resizing.logits(pixels.cpu().numpy(), answer)).to(device)

    def _of_any_size(self, pixels: Tensor) -> Tensor:
        """Return scores of the images' size; sides that the network refuses are padded by repeating their edge."""
        height, width = pixels.shape[2:]
        try:
            return resized(self._scores(pixels), (height, width))
        except ModelError:
            for stride in _STRIDES:
                below, right = -height % stride, -width % stride
                with suppress(ModelError):
                    scores = self._scores(F.pad(pixels, (0, right, 0, below), mode="replicate"))
                    return resized(scores, (height + below, width + right))[:, :, :height, :width]
            raise

    def _given(self, pixels: Tensor) -> Tensor:
        """Return raw pixels (N, bands, H, W) as the network takes them."""
        if self.adapter.order == "bgr":
            pixels = pixels[:, [2, 1, 0, *range(3, pixels.shape[1])]]
        statistics = self._scaling.mean, self._scaling.std
        mean, std = (torch.tensor(each, device=pixels.device).view(1, -1, 1, 1) for each in statistics)
        values, dtype = (pixels - mean) / std, self._dtype()
        if not dtype.is_floating_point:
            values = values.round().clamp(torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        if self.adapter.layout == "NHWC":
            values = values.permute(0, 2, 3, 1)
        return values.to(dtype)

    def _dtype(self) -> torch.dtype:
        """Return the type of numbers that the network takes: as its adapter says, else that of its weights."""
        if self.adapter.dtype is not None:
            stated: torch.dtype = getattr(torch, self.adapter.dtype)
            return stated
        floating = (value.dtype for value in self.network.parameters() if value.is_floating_point())
        return next(floating, torch.float32)

    def _run(self, pixels: Tensor) -> Any:
        """Return what the network answers to raw pixels.

        Raises:
            ModelError: It fails.
        """
        try:
            answer = self.network(self._given(pixels))
        except (SegshrinkError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # anything may go wrong in a foreign network
            if "not enough memory" in str(error):
                raise
            raise ModelError(
                f"{self.name} failed on an image of {' x '.join(map(str, pixels.shape[1:]))} ({_last_line(error)}); "
                "say in its adapter how it takes images ('layout', 'dtype', 'size')"
            ) from error
        if not self._told and "output_name" not in self.adapter.model_fields_set:
            self._told = True
            tell_choice(answer, self.name)
        return answer

    def _scores(self, pixels: Tensor) -> Tensor:
        try:
            answer = self._run(pixels)
        except ModelError:
            if len(pixels) == 1:
                raise
            return torch.cat([self._scores(image[None]) for image in pixels])  # programs may take one image at a time
        output = chosen_output(answer, self.adapter.output_name, self.name)
        counts = channels_for(self._classes)
        if self.adapter.layout == "NHWC" and output.ndim == 4:
            first, last = output.shape[1] in counts, output.shape[3] in counts
            output = output if first and not last else output.permute(0, 3, 1, 2)
        if self.adapter.output == "labels":
            labels = output[:, 0] if output.ndim == 4 and output.shape[1] == 1 else output
            if labels.ndim == 3:
                return one_hot_logits(labels, self._classes, self.adapter.confidence, self.name)
        if output.ndim != 4:
            expected = "labels (N, H, W)" if self.adapter.output == "labels" else "scores (N, classes, H, W)"
            remedy = "say 'output: labels' in its adapter where these are class numbers"
            remedy = remedy if output.ndim == 3 and self.adapter.output != "labels" else "correct its adapter"
            raise ModelError(f"{self.name} answers {tuple(output.shape)}, expected {expected}; {remedy}")
        return output.float()


class TorchTeacher(Teacher):
    """A frozen network: eval mode, no gradients.

    Args:
        model: Pixels (N, bands, H, W) -> logits, or probabilities, (N, K, h, w) of any size, alone or as
            ``chosen_output`` finds them. One channel z stands for two classes, with logits (0, z). What isn't a
            ``SegmentationModel`` gets pixels as they are, in float32.
        classes: The student's classes; None: those of the model's description, else "class 0" and so on, as many as
            the model has channels.
        mapping: Which channels stand for which class; None: K = C, in the same order.
        output: What the model answers; "auto" finds out at the first batch.
        scaling: Mean and standard deviation that an adapter gives its pixels, to see that images have the same units.
        name: How messages and reports call it.
    """

    module: nn.Module

    def __init__(
        self,
        model: nn.Module,
        classes: ClassMap | None = None,
        mapping: ClassMapping | None = None,
        *,
        output: Literal["auto", "logits", "probabilities"] = "auto",
        scaling: Normalization | None = None,
        name: str = "teacher",
    ) -> None:
        if classes is None:
            classes = model.description.classes if isinstance(model, SegmentationModel) else _numbered_classes(model)
        super().__init__(classes, mapping=mapping, scaling=scaling, name=name)
        self.module = model.eval().requires_grad_(False)
        self.sees_whole_scenes = isinstance(model, AdaptedNetwork) and model.resizing.size is not None
        network, _ = self.network_and_adapter
        if isinstance(network, SegmentationModel):
            self.resize = network.description.resize
        self._declared = output
        self._output: Literal["auto", "logits", "probabilities"] = output
        self._first_answer: list[float] | None = None

    @property
    def returns_probabilities(self) -> bool | None:
        """Whether the model answers with probabilities; None: not known yet."""
        return None if self._output == "auto" else self._output == "probabilities"

    def at_images_size(self) -> Self:
        """Return the same teacher whose network works at the size of the images that it gets."""
        other = copy.copy(self)
        if isinstance(other.module, SegmentationModel):
            other.module = other.module.with_resize(None).eval()
            other.resize = None
        return other

    @property
    def network_and_adapter(self) -> tuple[nn.Module, Adapter]:
        """Its network without anything around it, and what is said about that."""
        module = self.module
        return (module.network, module.adapter) if isinstance(module, AdaptedNetwork) else (module, Adapter())

    @property
    def identity(self) -> str:
        """SHA-256 of weights, description or adapter, class mapping, and of the answer to one fixed image.

        The answer tells what no setting does: other code, or numbers that a network keeps beside its weights.
        """
        digest = hashlib.sha256()
        network, adapter = self.network_and_adapter
        description: Any = getattr(network, "description", None)
        settings = [
            type(network).__qualname__,
            description.to_dict() if description else None,
            self.mapping.identity if self.mapping else None,
            self._declared,
            self._answer(),
        ]
        if isinstance(self.module, AdaptedNetwork):
            # Where the class names are written changes nothing.
            settings += [self.module.origin, adapter.model_dump(mode="json", exclude={"classes", "module"})]
        digest.update(json.dumps(settings, sort_keys=True).encode())
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> Self:
        """Move the network to ``device``; its identity stays what it was."""
        if torch.device(device).type != "cpu" and self._first_answer is None:
            self._first_answer = self._answer()  # another device rounds otherwise
        self.module.to(device)
        return self

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return float32 logits (N, C, H, W) at the input size, in the student's class order.

        A network whose output sums to one over the classes returns probabilities; it is recognized at the first batch
        and its output turned into log-probabilities, which a softmax leaves as they are.

        Args:
            images: Raw pixel values (N, bands, H, W), uint8 or float.

        Raises:
            ConfigError: Its adapter scales pixels from 0 to 1, and these are larger.
            ModelError: It answered with probabilities at first, and now with other numbers.
        """
        if images.dtype == torch.uint8:
            check_units(self._scaling, images, self.name)
        output = self._as_logits(self._run(images))
        if self.mapping is None:
            return output
        self._overlooked |= self.mapping.overlooked(output)
        return self.mapping.apply(output)

    def _as_logits(self, answer: Tensor) -> Tensor:
        """Return logits (N, K, H, W) for what the network answered, whose kind the first batch decides."""
        if answer.ndim != 4:
            raise ModelError(f"{self.name} answers {tuple(answer.shape)}, expected (N, classes, h, w)")
        if self._output == "auto":
            self._output = "probabilities" if tell_probabilities(answer, self.name) else "logits"
        elif self._output == "probabilities":
            check_probabilities(answer, self.name)
        if answer.shape[1] == 1:
            return two_class_logits(answer, probabilities=self._output == "probabilities")
        return to_log_probabilities(answer) if self._output == "probabilities" else answer

    def _run(self, images: Tensor) -> Tensor:
        """Return what the network answers, on the images' device."""
        if self.module.training:
            self.module.eval()
        anchor = next(self.module.parameters(), images)
        # Foreign networks compute in floating numbers only.
        pixels = images if isinstance(self.module, SegmentationModel) else images.float()
        output = chosen_output(self.module(pixels.to(anchor.device)), name=self.name)
        return resized(output.float().to(images.device), (images.shape[2], images.shape[3]))

    def _answer(self) -> list[float] | None:
        """Measure the answer to the fixed image, without a trace."""
        if self._first_answer is not None:
            return self._first_answer
        kept = [(buffer, buffer.clone()) for buffer in self.module.buffers()]
        try:
            return answer_to_fixed_image(self._run, self._bands())
        finally:
            for buffer, values in kept:
                buffer.copy_(values)

    def _bands(self) -> int:
        """Return how many bands it takes, as far as that can be seen."""
        return self.module.bands if isinstance(self.module, AdaptedNetwork) else bands_of(self.module)


def _last_line(error: Exception) -> str:
    """Return what a foreign error says; of those of TorchScript, whose text is a traceback, the last line."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines and "TorchScript" in lines[0] else one_line(error)


def for_crops(teacher: Teacher, resize: Resize | None) -> Teacher:
    """Return a teacher that is asked about crops of images which were brought to a working size.

    A model that brings images there by itself leaves it out; one without a working size gets the crops as they are.

    Raises:
        ConfigError: It brings images to another size, which crops don't tell.
    """
    if teacher.parts:
        return teacher.of_parts([for_crops(part, resize) for part in teacher.parts])
    if teacher.resize is None or (resize is None and not depends_on_image(teacher.resize)):
        return teacher
    alone = teacher.at_images_size() if isinstance(teacher, TorchTeacher) else teacher
    if alone.resize is not None or teacher.resize != resize:
        raise ConfigError(
            f"the teacher '{teacher.name}' works at {in_words(teacher.resize)}, which crops of images don't tell; set "
            "distillation.teacher_cache=true, so that it is asked about whole images"
        )
    return alone


def _numbered_classes(network: nn.Module) -> ClassMap:
    """Return a class for each channel that a network gives, found out by a dry run.

    Raises:
        ModelError: The network takes none of the images that are tried.
    """
    for size in _SIZES:
        with suppress(ModelError):
            output = chosen_output(dry_run(network, bands=bands_of(network), size=size))
            return ClassMap.build([f"class {index}" for index in range(max(2, output.shape[1]))])
    raise ModelError(
        f"{type(network).__name__} can't be run on a small image to count its classes; give them: "
        "TorchTeacher(network, classes)"
    )
