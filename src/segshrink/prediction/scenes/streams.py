"""One model on several cores: as many threads, which share a backend where its runtime allows that."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from segshrink.machine import default_threads
from segshrink.prediction.backends import Backend, open_backend

if TYPE_CHECKING:
    from segshrink.models import SegmentationModel

Result = TypeVar("Result")

# Runtimes whose calls may run at once in several threads: they share one copy of the model.
_SHAREABLE = ("onnxruntime", "openvino")


class Streams:
    """Threads that run a model, one core each; a context manager.

    A runtime that computes one image on one thread leaves no core waiting for another, so that several images at once
    are quicker than one image on several cores. torch is left to spread one image over the cores, since it has one
    setting for all threads; so is a model that is given as an object, of which there is one.

    Args:
        source: What ``open_backend`` takes.
        runtime: As ``open_backend`` takes it.
        cores: How many to use; by default all, or ``OMP_NUM_THREADS`` if less.

    Attributes:
        backend: The first thread's backend, which describes the model.
        count: How many threads.
    """

    def __init__(
        self, source: str | Path | SegmentationModel | Backend, *, runtime: str | None = None, cores: int | None = None
    ) -> None:
        spread = not isinstance(source, str | Path) or Path(source).is_dir()
        self.count = 1 if spread else cores or default_threads()
        self._open = partial(open_backend, source, runtime=runtime, threads=cores, streams=self.count)
        self.backend = self._open()
        self._spare = [self.backend]
        self._own = threading.local()
        self._executor = ThreadPoolExecutor(self.count, thread_name_prefix="tiles")

    def __enter__(self) -> Streams:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._executor.shutdown(cancel_futures=True)

    def run(self, tasks: Iterator[Callable[[Backend], Result]]) -> Iterator[Result]:
        """Do tasks at once, each with a thread's own backend, and give their results in the order of the tasks.

        Tasks are taken from the iterator a few ahead only, so that few results wait in memory.
        """
        waiting: deque[Future[Result]] = deque()
        try:
            for task in tasks:
                waiting.append(self._executor.submit(self._with_backend, task))
                if len(waiting) > 2 * self.count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()

    def _with_backend(self, task: Callable[[Backend], Any]) -> Any:
        backend = getattr(self._own, "backend", None)
        if backend is None:
            backend = self._own.backend = self._another()
        return task(backend)

    def _another(self) -> Backend:
        if self.backend.runtime in _SHAREABLE:
            return self.backend
        try:
            return self._spare.pop()
        except IndexError:
            return self._open()
