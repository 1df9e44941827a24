"""The schema of ``run.json``, ``bank.json`` and ``profile.json``, both as written and as read back."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from segshrink.records import Count, Flag, Many, Number, Record, Text
from segshrink.version import __version__

Role = Literal["teacher", "control", "student", "model"]


class MachineRecord(Record):
    """The machine that something was measured on, as ``segshrink.machine.describe_machine`` tells it."""

    cpu: Text | None = None
    cores: Count | None = None
    threads: Count | None = None
    memory_gb: Number | None = None
    device: Text | None = None
    precision: Text | None = None
    torch: Text | None = None
    python: Text | None = None


class ImageCounts(Record):
    """How many images a training used."""

    labeled: Count | None = None
    unlabeled: Count | None = None
    val: Count | None = None


class RunRecord(Record):
    """``run.json``: what was trained from what, and how far it came.

    Attributes:
        segshrink: Version of the program that wrote it.
        role: What the model is to the others of a comparison.
        created: When the training began, ISO 8601 with time zone.
        teacher: What the student learns from, for people.
        teachers: The same as sources of a recipe, see ``segshrink.config.TeacherSource``.
        teacher_identity: The same exactly: equal for equal weights and settings.
        teacher_precision: The precision that each teacher computed in, and what was measured to choose it.
        identity: Of a folder that describes a teacher: what it is, exactly.
        judged_on: Of such a folder: hash of the images and masks that it was evaluated on.
        seconds: Time of training.
        processor_seconds: Of all cores together, the processes that load data included, for everything from decoding
            images to the last validation; the sum over resumes.
        peak_memory_mb: Largest resident memory of the training's process, in 10^6 bytes; the largest over resumes, as
            the next two are.
        memory_beyond_libraries_mb: What of it came on top of Python and the imported libraries.
        gpu_peak_memory_mb: Largest memory of tensors on the GPU, where one trained.
        judged_by: What validation scores compare with: labels, or the teacher's answers where no image has a mask.
        best_mean_iou: Validation mIoU of the state that is handed over, in [0, 1].
    """

    segshrink: Text = __version__
    role: Role
    name: Text | None = None
    data: Text | None = None
    status: Literal["running", "stopped", "finished"] | None = None
    created: Text | None = None
    seed: Count | None = None
    images: ImageCounts = ImageCounts()
    judged_by: Literal["labels", "teacher"] | None = None
    machine: MachineRecord = MachineRecord()
    teacher: str | None = None
    teachers: Many[dict[str, Any]] = ()
    teacher_identity: str | None = None
    teacher_precision: Many[dict[str, Any]] = ()
    identity: str | None = None
    judged_on: str | None = None
    steps: Count | None = None
    epochs: Count | None = None
    seconds: Number | None = None
    processor_seconds: Number | None = None
    peak_memory_mb: Number | None = None
    memory_beyond_libraries_mb: Number | None = None
    gpu_peak_memory_mb: Number | None = None
    best_mean_iou: Number | None = None


class MemberRecord(Record):
    """One teacher of a bank: names of the training images of whose ground it has seen nothing."""

    unseen: Many[str] = ()


class BankRecord(Record):
    """``bank.json``: the teachers of a bank, in the order of their folders.

    Attributes:
        members: The teachers.
        images: Names of all training images.
    """

    remedy = "train the bank again"

    segshrink: Text = __version__
    members: Annotated[Many[MemberRecord], Field(min_length=1)]
    images: Many[str]


class LatencyRecord(Record):
    """Milliseconds for one image: raw pixels in, class map out, batch 1."""

    median: Number
    p95: Number | None = None
    low: Number | None = None
    high: Number | None = None
    runs: Count | None = None
    threads: Count | None = None


class LoadRecord(Record):
    """What other programs computed meanwhile: their share of the cores, and whether that spoils the times."""

    others: Number | None = None
    cores: Count | None = None
    seconds: Number | None = None
    busy: Flag = False


class StageRecord(Record):
    """What a network's layers of one resolution cost.

    Attributes:
        part: "encoder" or "decoder".
        stride: Pixels of the image to a position of the features.
        channels: Of the stage's last features.
        parameters: Number of weights.
        macs: Multiply-accumulates for one image.
    """

    part: Literal["encoder", "decoder"]
    stride: Count
    channels: Count
    parameters: Count
    macs: Count


class ProfileRecord(Record):
    """``profile.json``: what a model costs on a machine; see ``segshrink.profiling.profile_models``.

    Attributes:
        segshrink: Version of the program that wrote it.
        parameters: Number of weights.
        macs: Multiply-accumulates for one image.
        stages: The same by stage, down the encoder and up the decoder.
        input: Shape of that image, (1, bands, H, W).
        file_bytes: The weights on disk.
        peak_memory_mb: Largest resident set, in 10^6 bytes, of a process that loads the model and runs one image.
        baseline_memory_mb: The same of a process that loads no model.
        load: None where unknown.
        session: Equal for models that were timed in turns.
        turns: Their names.
    """

    remedy = "measure the model again"

    segshrink: Text = __version__
    parameters: Count | None = None
    macs: Count | None = None
    stages: Many[StageRecord] = ()
    input: Many[Count] = ()
    file_bytes: Count | None = None
    latency_ms: LatencyRecord | None = None
    peak_memory_mb: Number | None = None
    baseline_memory_mb: Number | None = None
    load: LoadRecord | None = None
    session: Text | None = None
    turns: Many[Text] = ()
    machine: MachineRecord = MachineRecord()

    @property
    def busy(self) -> bool:
        """Whether other programs spoiled the times."""
        return self.load is not None and self.load.busy
