from __future__ import annotations

from dataclasses import replace

import pytest

from segshrink.compression.budget import Budget
from segshrink.compression.search.candidates import Candidate
from segshrink.compression.search.records import Entry, MeasuredFile, Reference
from segshrink.compression.search.selection import front, nearest_file, prunings, shortlist, unmet

TEACHER = Reference("teacher", 0.65)


def file(latency: float = 10, size: int = 1_000_000, memory: float = 100, iou: float | None = None, **kinds: str):
    runtime, precision = kinds.get("runtime", "onnxruntime"), kinds.get("precision", "fp32")
    return MeasuredFile(runtime, precision, size, latency, latency, memory, mean_iou=iou)


def entry(name: str, *files: MeasuredFile, family: str = "", capacity: int = 100, **flags: bool) -> Entry:
    return Entry(Candidate(name, family or name, name, **flags), capacity, capacity, files)


def test_a_candidate_is_judged_by_the_file_that_comes_nearest() -> None:
    one = entry("one", file(40, 500_000), file(22, 400_000, precision="int8"))
    miss = nearest_file(one, one.untrained, Budget.parse("latency<=20ms,size<=1MB"), None)
    assert miss.reason == "too slow: latency 22 ms > 20 ms (int8 on onnxruntime)"
    assert miss.excess == pytest.approx(0.1)


def test_among_files_within_the_budget_the_most_accurate_counts() -> None:
    one = entry("one", file(19, iou=0.64), file(9, iou=0.63, precision="int8"))
    budget = Budget.parse("latency<=20ms,drop<=3")
    assert nearest_file(one, one.untrained, budget, TEACHER).file.precision == "fp32"
    tight = Budget.parse("latency<=10ms,drop<=1.5")
    miss = nearest_file(one, one.untrained, tight, TEACHER)
    assert miss.reason == "too inaccurate: drop 2.00 points > 1.50 points (int8 on onnxruntime)"


def test_the_shortlist_takes_the_own_student_then_the_strongest_of_each_family_in_turn() -> None:
    entries = [
        entry("unet-small", family="unet", capacity=1),
        entry("own", family="mobile", capacity=5, own=True),
        entry("mobile-wide", family="mobile", capacity=50),
        entry("mobile-short", family="mobile", capacity=4, keeps_weights=True),
        entry("unet-large", family="unet", capacity=9),
        entry("separable", family="separable", capacity=20),
    ]
    names = [one.name for one in shortlist(entries, 10)]
    assert names == ["own", "separable", "unet-large", "mobile-short", "unet-small", "mobile-wide"]
    assert [one.name for one in shortlist(entries, 2)] == ["own", "separable"]


def test_slightly_too_slow_candidates_with_weights_are_pruned_to_below_the_limit() -> None:
    budget = Budget.parse("latency<=20ms")
    slow = entry("slow", file(25), capacity=1000, keeps_weights=True)
    far = entry("far", file(50), capacity=5000, keeps_weights=True)
    random = entry("random", file(25), capacity=2000)
    (only,) = prunings([slow, far, random, entry("fits", file(5))], budget)
    assert only.entry is slow
    assert only.share == pytest.approx(0.85 / 1.25)
    assert only.macs == pytest.approx(680, abs=1)


def test_what_is_still_too_slow_is_pruned_further() -> None:
    budget = Budget.parse("latency<=20ms")
    slow = entry("slow", file(25), capacity=1000, keeps_weights=True)
    again = Entry(replace(slow.candidate, name="slow-pruned68", pruned_from="slow", macs=680), 680, 680, (file(22),))
    (only,) = prunings([slow, again, entry("fits", file(5))], budget)
    assert (only.entry, only.share) == (slow, pytest.approx(0.68 * 0.85 / 1.1))
    enough = replace(again, untrained=(file(19),))
    assert not prunings([slow, again, replace(enough, macs=520), entry("fits", file(5))], budget)


def test_where_nothing_fits_the_nearest_are_pruned_whatever_they_start_from() -> None:
    budget = Budget.parse("latency<=20ms")
    found = prunings([entry("b", file(50)), entry("a", file(25)), entry("hopeless", file(500))], budget)
    assert [one.entry.name for one in found] == ["a", "b"]
    assert not prunings([entry("fits", file(5)), entry("b", file(25))], budget)


def test_what_is_told_when_nothing_fits_names_the_limit_and_the_nearest() -> None:
    budget = Budget.parse("latency<=2ms,size<=1MB")
    entries = [entry("small", file(5)), entry("large", file(9, 5_000_000))]
    misses = [nearest_file(one, one.untrained, budget, None) for one in entries]
    told = unmet(misses, budget, trained=False)
    assert "latency<=2ms binds; the nearest, small (fp32 on onnxruntime), reaches latency 5 ms > 2 ms" in told
    assert "latency<=2ms is kept by 0 of 2, size<=1MB is kept by 1 of 2" in told


def test_the_front_holds_what_no_other_beats() -> None:
    kept = [file(10, 100, iou=0.6), file(20, 100, iou=0.7), file(30, 50, iou=0.6)]
    beaten = [file(20, 100, iou=0.65), file(10, 101, iou=0.6)]
    points = [(entry("x"), one) for one in (*beaten, *kept)]
    assert [found for _, found in front(points)] == kept


def test_equal_files_stand_on_the_front_together() -> None:
    points = [(entry("x"), file(10, iou=0.6)), (entry("y"), file(10, iou=0.6))]
    assert len(front(points)) == 2


def test_a_latency_of_a_busy_machine_refuses_nobody_in_silence() -> None:
    budget = Budget.parse("latency<=5ms,size<=2MB")
    busy = entry("slow", replace(file(latency=31), load=0.63))
    miss = nearest_file(busy, busy.untrained, budget, None)
    assert "63%" in miss.reason
    assert "63%" in unmet([miss], budget, trained=False)
    too_large = nearest_file(busy, busy.untrained, Budget.parse("size<=1kB"), None)
    assert "63%" not in too_large.reason, "sizes don't depend on others"
    quiet = entry("slow", replace(file(latency=31), load=0.05))
    assert "%" not in nearest_file(quiet, quiet.untrained, budget, None).reason
