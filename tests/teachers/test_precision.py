from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from segshrink.classes import ClassMap
from segshrink.errors import ModelError
from segshrink.teachers import Augmented, Ensemble, Teacher, precision
from segshrink.teachers.precision import quickest

CLASSES = ClassMap.build([("Land", None, None), ("Water", None, None)])
TILE = np.arange(2 * 10 * 10, dtype=np.uint8).reshape(2, 10, 10)


class Clock:
    """A clock that only teachers' answers move, so that a busy machine changes no choice."""

    seconds = 0.0

    @classmethod
    def perf_counter(cls) -> float:
        return cls.seconds


class Slow(Teacher):
    """Answers with the images themselves, after a while; some share of them is wrong."""

    def __init__(self, name: str = "slow", *, milliseconds: float = 40.0, wrong: float = 0.0) -> None:
        super().__init__(CLASSES, name=name)
        self.milliseconds = milliseconds
        self.wrong = wrong
        self.asked = 0

    @property
    def identity(self) -> str:
        return f"{self.name} {self.milliseconds} {self.wrong}"

    def logits(self, images: Tensor) -> Tensor:
        self.asked += 1
        Clock.seconds += self.milliseconds / 1000
        logits = nn.functional.one_hot((images[:, 0] % 2).long(), 2).permute(0, 3, 1, 2).float()
        rows = round(self.wrong * logits.shape[2])
        logits[:, :, :rows] = logits[:, :, :rows].flip(1)
        return logits


def ask(teacher: Teacher, tile: NDArray[Any]) -> Tensor:
    return teacher.logits(torch.from_numpy(tile)[None])


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """What the other runtime does, by precision: ``milliseconds``, ``wrong``, or ``error``."""
    behaviour: dict[str, dict[str, Any]] = {"bf16": {"milliseconds": 20.0}, "int8": {"milliseconds": 5.0}}

    class Lowered(Slow):
        def __init__(self, teacher: Teacher, how: str, tiles: Any) -> None:
            own = dict(behaviour[how])
            self.error = own.pop("error", None)
            super().__init__(f"{teacher.name} {how}", **own)

        def logits(self, images: Tensor) -> Tensor:
            if self.error:
                raise ModelError(self.error)
            return super().logits(images)

    monkeypatch.setattr(precision, "OpenVinoTeacher", Lowered)
    monkeypatch.setattr(precision, "time", Clock)
    return behaviour


def choose(teacher: Teacher, folder: Path, lowest: str = "int8") -> tuple[str, Any]:
    found, choices = quickest(teacher, lowest, [TILE], ask=ask, question="a tile", folder=folder)
    return found.name, choices


def test_the_quickest_that_answers_the_same_is_taken(
    tmp_path: Path, runtime: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    name, (choice,) = choose(Slow(), tmp_path)
    assert name == "slow int8"
    assert choice.chosen == "int8"
    assert choice.same_class == {"bf16": 1.0, "int8": 1.0}
    assert choice.milliseconds["own"] > choice.milliseconds["bf16"] > choice.milliseconds["int8"]
    assert "slow runs in int8 through OpenVINO" in caplog.text
    assert "100.0 % of pixels keep their class" in caplog.text
    assert choose(Slow(), tmp_path, "bf16")[0] == "slow bf16"
    assert choose(Slow(), tmp_path, "auto") == ("slow", ())


def test_one_that_answers_differently_is_not(tmp_path: Path, runtime: dict[str, dict[str, Any]]) -> None:
    runtime["int8"]["wrong"] = 0.1
    name, (choice,) = choose(Slow(), tmp_path)
    assert name == "slow bf16"
    assert choice.same_class["int8"] == pytest.approx(0.9)


def test_a_slower_one_is_not(
    tmp_path: Path, runtime: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    name, (choice,) = choose(Slow(milliseconds=1.0), tmp_path)
    assert (name, choice.chosen) == ("slow", "own")
    assert "slow runs as it is" in caplog.text
    assert "(through OpenVINO bf16: 2" in caplog.text


def test_one_that_fails_is_not_and_may_be_mended(
    tmp_path: Path, runtime: dict[str, dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    runtime["int8"]["error"] = "NNCF can't"
    name, (choice,) = choose(Slow(), tmp_path)
    assert name == "slow bf16"
    assert choice.failures == {"int8": "NNCF can't"}
    del runtime["int8"]["error"]
    assert choose(Slow(), tmp_path)[0] == "slow int8"


def test_a_choice_holds_until_something_changes(
    tmp_path: Path, runtime: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, again = Slow(), Slow()
    _, (choice,) = choose(first, tmp_path)
    assert choose(again, tmp_path) == ("slow int8", (choice,))
    assert (first.asked > 0, again.asked) == (True, 0)
    next(tmp_path.glob("precision-*.json")).write_text("{}")
    assert choose(again, tmp_path)[0] == "slow int8"
    assert again.asked > 0
    monkeypatch.setattr(precision, "package_versions", lambda *names: {"openvino": "another"})
    asked = again.asked
    choose(again, tmp_path)
    assert again.asked > asked


def test_each_of_several_is_chosen_for(tmp_path: Path, runtime: dict[str, dict[str, Any]]) -> None:
    several = Augmented(Ensemble([Slow("one"), Slow("two", milliseconds=1.0)], [1.0, 3.0]), flips=True)
    found, choices = quickest(several, "int8", [TILE], ask=ask, question="a tile", folder=tmp_path)
    assert isinstance(found, Augmented)
    assert isinstance(found.teacher, Ensemble)
    assert [part.name for part in found.teacher.teachers] == ["one int8", "two"]
    assert found.teacher.weights == (1.0, 3.0)
    assert found.views == several.views
    assert [choice.teacher for choice in choices] == ["one", "two"]
    assert found.identity != several.identity
    image = torch.from_numpy(TILE)[None]
    assert torch.allclose(found.logits(image), several.logits(image))


def test_answers_by_name_and_foreign_networks_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    by_name = Slow()
    by_name.whole_scenes = True
    assert choose(by_name, tmp_path) == ("slow", ())
    assert choose(Slow("no network"), tmp_path) == ("no network", ())
    assert "no network has no network; until then it runs as it is" in caplog.text
    assert not list(tmp_path.iterdir())
