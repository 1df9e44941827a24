"""Archives: shares of many scenes for many workers, lists of scenes, and what predicting them will take."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from segshrink.errors import FileError, UsageError
from segshrink.files import scratch_folder
from segshrink.imagery.raster_files import Source, is_remote
from segshrink.imagery.scenes import scene_name

if TYPE_CHECKING:
    from segshrink.prediction.scenes.plan import ScenePlan

# Scenes that are predicted to see how long the others will take, and seconds after which no further one is begun.
_TRIED, _LONG_ENOUGH = 8, 60.0


@dataclass(frozen=True)
class Shard:
    """One of several shares of many scenes; every scene belongs to one, on every machine.

    Attributes:
        number: Which, from 1.
        count: Of how many.

    Raises:
        UsageError: There is no such share.

    Example:
        >>> sum(Shard(number, 3).holds("tiles/a") for number in (1, 2, 3))
        1
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise UsageError(f"there is no share {self.number} of {self.count}; shares count from 1, such as 3/16")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``"3/16"``.

        Raises:
            UsageError: It says something else.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text.strip())
        if match is None:
            raise UsageError(f"'{text}' is no share; write which and of how many, such as 3/16")
        return cls(int(match[1]), int(match[2]))

    def holds(self, name: str) -> bool:
        """Whether a name's share is this one."""
        return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8]) % self.count == (
            self.number - 1
        )

    def of(self, scenes: Mapping[Source, Path]) -> dict[Source, Path]:
        """Return the scenes of this share: by the name of their results, so that two of one name meet in one share."""
        return {
            scene: place
            for scene, place in scenes.items()
            if self.holds((place / scene_name(scene)).as_posix().lower())
        }


def read_manifest(file: str | Path) -> list[Source]:
    """Read a list of scenes, one path or URL a line, relative to the file; empty lines and those from # on don't count.

    Raises:
        FileError: It can't be read, or names nothing.
    """
    path = Path(file)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(f"can't read the list of scenes {path}: {error}; give a text file, one scene a line") from error
    named = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not named:
        raise FileError(f"the list {path} names no scene; write one path or URL a line")
    return [name if is_remote(name) else path.parent / name for name in named]


@dataclass(frozen=True)
class Estimate:
    """What predicting scenes will take, judged by some of them.

    Attributes:
        scenes: How many are left to predict.
        pixels: Of their results.
        seconds: That one process like this one will take.
        bytes: Of their results' files.
        tried: How many were predicted to know.
        unreadable: Scenes that can't be read, as far as that was seen; they don't count.
    """

    scenes: int
    pixels: int
    seconds: float
    bytes: float
    tried: int
    unreadable: tuple[Source, ...] = ()


class Trial:
    """Predicts some scenes of all sizes into a temporary folder, and tells what all will take."""

    def __init__(self, plans: Sequence[ScenePlan]) -> None:
        self.plans = list(plans)
        by_size = sorted(plans, key=lambda plan: plan.pixels)
        places = np.linspace(0, len(by_size) - 1, min(_TRIED, len(by_size))).round().astype(int)
        # The middle first: the most like all others, should it alone be predicted in time.
        self._order = [by_size[place] for place in sorted(set(places.tolist()), key=lambda p: abs(p - len(plans) / 2))]
        self._pixels: list[int] = []
        self._seconds: list[float] = []
        self._bytes: list[int] = []

    def run(self, predict: Callable[[ScenePlan, Path], int | None]) -> Estimate:
        """Predict, and judge.

        Args:
            predict: Predicts one planned scene into a folder; returns the bytes of the results, None where it can't be
                read.
        """
        with scratch_folder() as folder:
            for number, plan in enumerate(self._order):
                began = time.perf_counter()
                written = predict(plan, folder / str(number))
                if written is None:
                    self.plans.remove(plan)
                    continue
                self._bytes.append(written)
                self._seconds.append(time.perf_counter() - began)
                self._pixels.append(plan.pixels)
                if sum(self._seconds) > _LONG_ENOUGH:
                    break
        if not self._pixels:
            return Estimate(0, 0, 0.0, 0.0, tried=0)
        pixels = sum(plan.pixels for plan in self.plans)
        return Estimate(
            len(self.plans), pixels, self._all(self._seconds), self._all(self._bytes), tried=len(self._pixels)
        )

    def _all(self, taken: Sequence[float]) -> float:
        """Judge the sum over all scenes: so much for each scene and so much for each pixel, by least squares."""
        of_all = np.array([len(self.plans), sum(plan.pixels for plan in self.plans)], float)
        tried = np.stack([np.ones(len(taken)), np.array(self._pixels, float)], axis=1)
        each, _, rank, _ = np.linalg.lstsq(tried / tried.max(axis=0), np.array(taken, float), rcond=1e-3)
        if rank < 2 or (each < 0).any():  # all of one size, or noise
            return float(of_all[1] * sum(taken) / sum(self._pixels))
        return float(of_all @ (each / tried.max(axis=0)))
