"""How a network is optimized, for how long and on which devices."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from segshrink.config.base import Options, Strict
from segshrink.machine import LARGEST_THREADS


class NamedOptions(Strict):
    """Something by name, with its options. A text alone is its ``name``."""

    name: str
    """Its name."""
    options: Options = Field(default={})
    """Its options by name."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Training(Strict):
    """How long and how a network is optimized."""

    epochs: int = Field(default=50, ge=1, le=10**6)
    """Number of epochs; an epoch has as many crops as ``crops.per_epoch`` says."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Largest learning rate, reached after the warm-up."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Weight decay; norms and biases have none."""
    optimizer: NamedOptions = NamedOptions(name="adamw")
    """A name of timm's ("adamw", "sgd", "lamb", "lion", ...), or a class of torch.optim ("SGD", "Muon", ...); with
    options: {name: sgd, options: {momentum: 0.95}}."""
    schedule: NamedOptions = NamedOptions(name="cosine")
    """How the learning rate falls: "cosine" to zero; another name of timm's ("poly", "step", "constant", ...; options
    in epochs), or a class of torch.optim.lr_scheduler ("PolynomialLR", "OneCycleLR", ...; options in steps, the length
    of the training is filled in)."""
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of all steps in which the learning rate rises linearly to what the schedule says."""
    accumulate: int = Field(default=1, ge=1, le=65536)
    """Batches whose gradients are averaged into one step: as many crops as of larger batches, in less memory. Batch
    normalization sees each batch by itself."""
    clip_norm: float | None = Field(default=1.0, gt=0)
    """Largest norm of the gradient; None doesn't clip."""
    ema_decay: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the exponential moving average of the weights per step (0.999, say), which follows more
    quickly at first; None keeps the plain weights."""
    keep: Literal["best", "last"] = "best"
    """The state that is handed over: the epoch with the "best" mIoU on whole validation scenes; or the "last" epoch,
    averaged where ``ema_decay`` says so. Then nothing is chosen on validation scenes, which are looked at once, after
    the last epoch."""
    patience: int | None = Field(default=None, ge=1)
    """Stop after this many validations without a better mIoU; None trains to the end."""
    validate_every: int = Field(default=1, ge=1)
    """Measure the mIoU on whole validation scenes every so many epochs, and after the last; losses are measured on
    fixed crops of them after every epoch."""
    precision: Literal["auto", "32", "bf16", "fp16"] = "auto"
    """Precision of the computation: "auto" is bf16 where the device computes in it, fp16 on other GPUs, else 32-bit.
    bf16 elsewhere and fp16 on a CPU are refused."""
    compile: bool = False
    """torch.compile the network."""
    threads: int | None = Field(default=None, ge=1, le=LARGEST_THREADS)
    """CPU threads of each process; None takes the cores that are free."""
    devices: int = Field(default=1, ge=1, le=1024)
    """GPUs of a machine that train together, with a process for each; without GPUs so many processes on the CPU.
    Together they see the crops of a step, so that what is learned doesn't depend on their number."""
    nodes: int = Field(default=1, ge=1, le=1024)
    """Machines with so many devices each, which torchrun or SLURM starts; ``segshrink submit`` writes the job."""
    strategy: Literal["ddp", "ddp_find_unused_parameters_true"] = "ddp"
    """How Lightning averages the gradients of several processes; the second is for networks of which a part is unused
    in a step."""
    sync_batchnorm: bool = False
    """Let batch normalization on several GPUs see the crops of all of them; False: each sees its own."""

    @property
    def processes(self) -> int:
        """Processes that train together."""
        return self.devices * self.nodes

    @model_validator(mode="after")
    def _chosen_by_scores_or_not(self) -> Training:
        if self.keep == "last" and self.patience is not None:
            raise ValueError("patience stops by validation scores, which keep: last doesn't look at; leave one out")
        return self
