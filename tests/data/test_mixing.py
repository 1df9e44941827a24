"""Mixed crops: every layer alike, from two crops of the batch, and a function of the generator."""

from __future__ import annotations

import torch

from segshrink.data.mixing import blended, cut_mixed


def batch(size: int = 24) -> dict[str, torch.Tensor]:
    crops = torch.arange(4)
    image = (crops.view(4, 1, 1, 1) * 50).expand(4, 3, size, size).to(torch.uint8)
    target = crops.view(4, 1, 1).expand(4, size, size).clone()
    inside = torch.ones(4, size, size, dtype=torch.bool)
    inside[1, : size // 2] = False
    return {"image": image, "target": target, "inside": inside, "teacher": image[:, :2], "sample": crops}


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_rectangle_of_the_crop_before_comes_with_its_labels_and_answers():
    mixed = cut_mixed(batch(), 1.0, random())
    for crop in range(4):
        changed = mixed["target"][crop] != crop
        assert 0.01 < changed.float().mean() < 0.45
        rows, cols = changed.any(1).nonzero(), changed.any(0).nonzero()
        assert changed[rows.min() : rows.max() + 1, cols.min() : cols.max() + 1].all()
        assert set(mixed["target"][crop].unique().tolist()) == {crop, (crop - 1) % 4}
        assert torch.equal(mixed["image"][crop, 0].long(), mixed["target"][crop] * 50)
        assert torch.equal(mixed["teacher"][crop], mixed["image"][crop, :2])
    assert not mixed["inside"][2].all(), "what was outside of crop 1 is so in crop 2"
    assert torch.equal(mixed["sample"], torch.arange(4))


def test_as_many_crops_are_mixed_as_chance_has_it_and_the_same_ones_again():
    first, again = (cut_mixed(batch(), 0.5, random(3)) for _ in range(2))
    assert torch.equal(first["target"], again["target"])
    counts = [
        int((cut_mixed(batch(8), 0.25, random(s))["target"] != batch(8)["target"]).flatten(1).any(1).sum())
        for s in range(200)
    ]
    assert 0.2 < sum(counts) / 800 < 0.3
    assert torch.equal(cut_mixed(batch(), 0.0, random())["target"], batch()["target"])


def test_blended_crops_lie_between_two_and_have_no_labels():
    whole = batch()
    mixed = blended(whole, 1.0, random())
    assert (mixed["target"] == 255).all()
    for crop in range(4):
        low, high = sorted((crop * 50, (crop - 1) % 4 * 50))
        values = mixed["image"][crop].unique()
        assert len(values) == 1
        assert low <= int(values) <= high
    assert torch.equal(mixed["inside"][2], whole["inside"][1] & whole["inside"][2])
    assert torch.equal(blended(whole, 0.0, random())["image"], whole["image"])
