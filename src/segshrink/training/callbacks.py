"""What happens beside the optimisation: the metrics file and progress."""

from __future__ import annotations

import csv
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from segshrink.files import write_text

Progress = Callable[[int, int, str], None]


class MetricsFile(Callback):
    """Writes ``metrics.csv``: a row per epoch, whole after every epoch; rows survive a resume.

    Columns: epoch (from 1), step, seconds since the start (interruptions not counted), learning_rate, then every
    logged metric; a cell is empty where nothing was measured.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._began = 0.0

    @property
    def seconds(self) -> float:
        """Seconds trained so far, over all resumes."""
        return time.perf_counter() - self._began

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock where the last whole epoch stopped it."""
        before = float(self.rows[-1]["seconds"]) if self.rows else 0.0
        self._began = time.perf_counter() - before

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the row of this epoch."""
        metrics = trainer.callback_metrics
        validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
        fresh = {name: float(value) for name, value in metrics.items() if validated or not name.startswith("val/")}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step, "seconds": round(self.seconds, 2)}
        self.rows.append({**row, "learning_rate": rate, **fresh})
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.path, text.getvalue())

    def state_dict(self) -> dict[str, Any]:
        """Keep the rows in the checkpoint, so that file and weights always belong together."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows of the checkpoint."""
        self.rows = list(state_dict["rows"])


@contextmanager
def interrupt_restored() -> Iterator[None]:
    """Give Ctrl-C its former meaning after the block: we take the signal over, and Lightning switches it off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


class InterruptBetweenSteps(Callback):
    """Turns Ctrl-C into a KeyboardInterrupt after the step under way.

    Raised at any other moment it can be lost: Python drops exceptions inside finalisers and library callbacks. A second
    Ctrl-C interrupts at once.
    """

    def __init__(self) -> None:
        self._requested = False

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take over the signal; only a program's main thread may."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._note)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Interrupt after a training step."""
        self._interrupt_if_requested()

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any
    ) -> None:
        """Interrupt after a validation scene."""
        self._interrupt_if_requested()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True

    def _interrupt_if_requested(self) -> None:
        if self._requested:
            raise KeyboardInterrupt


class StepProgress(Callback):
    """Tells ``progress(done, total, text)`` after every step; the text holds the loss and the last mIoU."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Report the step."""
        total = int(trainer.estimated_stepping_batches)
        score = trainer.callback_metrics.get("val/mean_iou")
        shown = f", val mIoU {float(score):.3f}" if score is not None else ""
        self.progress(trainer.global_step, total, f"epoch {trainer.current_epoch + 1}{shown}")
