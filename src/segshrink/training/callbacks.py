"""What happens beside the optimization: the metrics file, checkpoints, signals and progress."""

from __future__ import annotations

import csv
import io
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from segshrink.files import write_text
from segshrink.signals import END, Terminated, end, in_main_thread

Progress = Callable[[int, int, str], None]
# What whole validation scenes give.
MEAN_IOU = "val/mean_iou"


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
        if not trainer.is_global_zero:
            return
        stale = () if pl_module.scores_scenes else (MEAN_IOU,)
        fresh = {name: float(value) for name, value in trainer.callback_metrics.items() if name not in stale}
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


class Checkpoints(ModelCheckpoint):
    """Checkpoints that stay what they were when their folder is moved."""

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the state."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the state, with all paths where the folder lies now."""
        paths = {"best_model_path", "kth_best_model_path", "last_model_path"} & state_dict.keys()
        models = {self._moved(path): score for path, score in state_dict.get("best_k_models", {}).items()}
        moved = {name: self._moved(state_dict[name]) for name in paths}
        super().load_state_dict({**state_dict, **moved, "best_k_models": models, "dirpath": self.dirpath})

    def _moved(self, path: str) -> str:
        return str(Path(self.dirpath or "") / Path(path).name) if path else path


class BestCheckpoint(Checkpoints):
    """Keeps the epoch with the highest mIoU on whole scenes; of equal ones the last, which has learned longest."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder, "best", monitor=MEAN_IOU, mode="max", save_on_train_epoch_end=False, enable_version_counter=False
        )

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look at the score in epochs that have one."""
        if pl_module.scores_scenes and MEAN_IOU in trainer.callback_metrics:
            super().on_validation_end(trainer, pl_module)

    def check_monitor_top_k(self, trainer: lightning.Trainer, current: torch.Tensor | None = None) -> bool:
        """Tell whether a score is at least as good as the best."""
        return super().check_monitor_top_k(trainer, current) or bool(current == self.best_model_score)


class Patience(EarlyStopping):
    """Stops after so many measured epochs without a better mIoU, and stays stopped when the run is resumed."""

    def __init__(self, patience: int) -> None:
        super().__init__(MEAN_IOU, mode="max", patience=patience, verbose=False, check_on_train_epoch_end=False)

    @property
    def state_key(self) -> str:
        """The name under which a checkpoint keeps the state."""
        return super().state_key.replace(type(self).__qualname__, EarlyStopping.__qualname__, 1)

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Train no further where the checkpoint was the last one."""
        trainer.should_stop = self.wait_count >= self.patience

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look at the score in epochs that have one."""
        if pl_module.scores_scenes:
            super().on_validation_end(trainer, pl_module)


@contextmanager
def interrupt_restored() -> Iterator[None]:
    """Give signals their former meaning after the block: we take them over, and Lightning switches Ctrl-C off.

    A program that was told to end goes on ignoring whoever tells it again.
    """
    if not in_main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *END)}
    try:
        yield
    except Terminated:
        handlers.update(dict.fromkeys(END, signal.SIG_IGN))
        raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


class InterruptBetweenSteps(Callback):
    """Turns Ctrl-C into a KeyboardInterrupt, and SIGTERM and SIGHUP into ``Terminated``, after the step under way.

    Raised at any other moment they can be lost: Python drops exceptions inside finalizers and library callbacks. A
    second signal interrupts at once. Of several processes all end after the same step, whichever was told to.
    """

    def __init__(self) -> None:
        self._requested: int | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Take over the signals, from Lightning, too; only a program's main thread may.

        Lightning's own handler lets processes talk to each other wherever they are, which hangs.
        """
        if in_main_thread():
            for number in (signal.SIGINT, *END):
                if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, self._note)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Interrupt after a training step."""
        self._interrupt_all_if_requested(trainer)

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any
    ) -> None:
        """Interrupt after a validation scene, of which each process has another number."""
        if trainer.world_size == 1:
            self.interrupt_if_requested()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Interrupt after a validation."""
        self._interrupt_all_if_requested(trainer)

    def interrupt_if_requested(self) -> None:
        """Raise what a signal asked for."""
        if self._requested is not None:
            end(self._requested)

    def _interrupt_all_if_requested(self, trainer: lightning.Trainer) -> None:
        if trainer.world_size > 1:
            requested = torch.tensor(self._requested or 0, device=trainer.strategy.root_device)
            self._requested = int(trainer.strategy.reduce(requested, reduce_op="max")) or None
        self.interrupt_if_requested()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._requested is not None:
            end(number)
        self._requested = number


class StepProgress(Callback):
    """Tells ``progress(done, total, text)`` after every step; the text holds the loss and the last mIoU."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: Any) -> None:
        """Report the step."""
        total = int(trainer.estimated_stepping_batches)
        score = trainer.callback_metrics.get(MEAN_IOU)
        shown = f", val mIoU {float(score):.3f}" if score is not None else ""
        self.progress(trainer.global_step, total, f"epoch {trainer.current_epoch + 1}{shown}")
