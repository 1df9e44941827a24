"""Networks that take pixels in their own way teach all the same, or say at once which line of an adapter they need."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from segshrink.classes import ClassMap
from segshrink.config import TeacherSource
from segshrink.errors import ModelError
from segshrink.teachers import open_teacher

CLASSES = ClassMap.build(["ground", "roof", "water"])
CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, kind="plain"):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.kind = nn.Conv2d(3, 3, 1), kind
        if kind == "bf16":
            self.bfloat16()

    def forward(self, images):
        sides = images.shape[2:]
        multiple = {"32": 32, "64": 64}.get(self.kind, 1)
        if any(side % multiple for side in sides) or (self.kind == "fixed" and tuple(sides) != (64, 64)):
            raise ValueError("other sides")
        if self.kind == "single" and len(images) > 1:
            raise ValueError("one image at a time")
        if self.kind == "bytes_last":
            return self.layer(images.permute(0, 3, 1, 2).float())
        scores = self.layer(images)
        if self.kind == "named":
            return {"boundary": scores[:, :, ::2, ::2], "semantic": scores}
        return scores.argmax(1) if self.kind == "labels" else scores


def lazy():
    return nn.Sequential(nn.LazyConv2d(3, 1))
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"foreign_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def images(count: int = 1, height: int = 64, width: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


def expected(pixels: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return nn.Conv2d(3, 3, 1)(pixels.float())


def answer(code: str, kind: str, pixels: torch.Tensor, **adapter: object) -> torch.Tensor:
    source = TeacherSource(source=f"{code}:Net", options={"kind": kind}, adapter=adapter)
    return open_teacher(source, CLASSES).logits(pixels)


@pytest.mark.parametrize(("kind", "size"), [("32", (50, 70)), ("64", (50, 70)), ("single", (64, 96))])
def test_sides_and_batches_that_a_network_refuses_are_brought_to_it(
    code: str, kind: str, size: tuple[int, int]
) -> None:
    pixels = images(2, *size)
    assert torch.allclose(answer(code, kind, pixels), expected(pixels), atol=1e-3)


def test_it_gets_numbers_of_its_weights_type(code: str) -> None:
    assert torch.allclose(answer(code, "bf16", images(), std=255), expected(images() / 255), atol=0.02)


def test_pixels_may_come_last_and_answers_first(code: str) -> None:
    given = answer(code, "bytes_last", images(), layout="NHWC", dtype="uint8")
    assert torch.allclose(given, expected(images()), atol=1e-3)


def test_a_network_of_one_size_says_so_before_anything_is_trained(code: str) -> None:
    with pytest.raises(ModelError, match=r"none of 96 x 128; say 'size: 64' in its adapter"):
        answer(code, "fixed", images())
    given = answer(code, "fixed", images(1, 128, 128), size=64, fit="tile")
    assert torch.allclose(given, expected(images(1, 128, 128)), atol=1e-3)


def test_class_numbers_name_the_line_to_write(code: str) -> None:
    with pytest.raises(ModelError, match="say 'output: labels' in its adapter"):
        answer(code, "labels", images())


def test_what_is_taken_for_granted_is_said(code: str, caplog: pytest.LogCaptureFixture) -> None:
    given = answer(code, "named", images())
    assert given.shape == (1, 3, 64, 64)
    assert "answers with boundary, semantic; boundary is taken; another is chosen by 'output_name'" in caplog.text
    assert "gets pixels as they are" in caplog.text
    caplog.clear()
    chosen = answer(code, "named", images(), output_name="semantic", mean=0)
    assert torch.allclose(chosen, expected(images()), atol=1e-3)
    assert "is taken" not in caplog.text
    assert "gets pixels" not in caplog.text


def test_weights_are_loaded_into_lazy_layers(code: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1))
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    teacher = open_teacher(TeacherSource(source=f"{code}:lazy", weights=tmp_path / "weights.pth"), CLASSES)
    with torch.no_grad():
        assert torch.allclose(teacher.logits(images()), network(images().float()), atol=1e-3)


def test_the_first_tensor_that_does_not_fit_is_named(code: str, tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Conv2d(3, 5, 1)).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ModelError) as caught:
        open_teacher(TeacherSource(source=f"{code}:lazy", weights=tmp_path / "weights.pth"), CLASSES)
    assert "0.weight is (5, 3, 1, 1) in the file but (3, 3, 1, 1) in the network" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_copies_of_a_network_are_told_apart(code: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = (nn.Sequential(nn.Conv2d(3, 3, 1)).state_dict() for _ in range(2))
    path = tmp_path / "weights.ckpt"
    source = TeacherSource(source=f"{code}:lazy", weights=path)

    def save(*prefixes: str) -> None:
        parts = zip(prefixes, (first, second), strict=True)
        torch.save({"state_dict": {p + name: value for p, part in parts for name, value in part.items()}}, path)

    save("student.", "teacher.")
    with pytest.raises(ModelError, match=r"under 'student\.', 'teacher\.', with different weights"):
        open_teacher(source, CLASSES)
    save("model.", "average.")
    open_teacher(source, CLASSES)
    torch.save({f"model._orig_mod.{name}": value for name, value in first.items()}, path)
    open_teacher(source, CLASSES)
    del caplog
