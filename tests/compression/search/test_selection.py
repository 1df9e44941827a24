from __future__ import annotations

from dataclasses import replace

import pytest

from segshrink.compression.budget import Budget
from segshrink.compression.search.candidates import Candidate, CandidateFile, CandidateResult
from segshrink.compression.search.selection import front_costs, nearest_file, prunings, shortlist, unmet_message
from segshrink.profiling.scatter import pareto_front

TEACHER_IOU = 0.65


def file(latency: float = 10, size: int = 1_000_000, memory: float = 100, iou: float | None = None, **kinds: str):
    runtime, precision = kinds.get("runtime", "onnxruntime"), kinds.get("precision", "fp32")
    return CandidateFile(runtime, precision, size, latency, latency, memory, mean_iou=iou)


def result(name: str, *files: CandidateFile, family: str = "", capacity: int = 100, **flags: bool) -> CandidateResult:
    return CandidateResult(Candidate(name, family or name, name, **flags), capacity, capacity, files)


def test_a_candidate_is_judged_by_the_file_that_comes_nearest() -> None:
    one = result("one", file(40, 500_000), file(22, 400_000, precision="int8"))
    miss = nearest_file(one, one.untrained, Budget.parse("latency<=20ms,size<=1MB"))
    assert miss.reason == "too slow: latency 22 ms > 20 ms (int8 on onnxruntime)"
    assert miss.excess == pytest.approx(0.1)


def test_among_files_within_the_budget_the_most_accurate_counts() -> None:
    one = result("one", file(19, iou=0.64), file(9, iou=0.63, precision="int8"))
    budget = Budget.parse("latency<=20ms,drop<=3")
    assert nearest_file(one, one.untrained, budget, teacher_iou=TEACHER_IOU).file.precision == "fp32"
    tight = Budget.parse("latency<=10ms,drop<=1.5")
    miss = nearest_file(one, one.untrained, tight, teacher_iou=TEACHER_IOU)
    assert miss.reason == "too inaccurate: drop 2.00 points > 1.50 points (int8 on onnxruntime)"


def test_the_shortlist_takes_the_recipes_student_then_the_strongest_of_each_family_in_turn() -> None:
    results = [
        result("unet-small", family="unet", capacity=1),
        result("own", family="mobile", capacity=5, from_recipe=True),
        result("mobile-wide", family="mobile", capacity=50),
        result("mobile-short", family="mobile", capacity=4, keeps_weights=True),
        result("unet-large", family="unet", capacity=9),
        result("separable", family="separable", capacity=20),
    ]
    names = [one.name for one in shortlist(results, 10)]
    assert names == ["own", "separable", "unet-large", "mobile-short", "unet-small", "mobile-wide"]
    assert [one.name for one in shortlist(results, 2)] == ["own", "separable"]


def test_slightly_too_slow_candidates_with_weights_are_pruned_to_below_the_limit() -> None:
    budget = Budget.parse("latency<=20ms")
    slow = result("slow", file(25), capacity=1000, keeps_weights=True)
    far = result("far", file(50), capacity=5000, keeps_weights=True)
    random = result("random", file(25), capacity=2000)
    (only,) = prunings([slow, far, random, result("fits", file(5))], budget)
    assert (only.name, only.pruned_from) == ("slow-pruned68", "slow")
    assert only.macs == pytest.approx(1000 * 0.85 / 1.25, abs=1)


def test_what_is_still_too_slow_is_pruned_further() -> None:
    budget = Budget.parse("latency<=20ms")
    slow = result("slow", file(25), capacity=1000, keeps_weights=True)
    again = CandidateResult(
        replace(slow.candidate, name="slow-pruned68", pruned_from="slow", macs=680), 680, 680, (file(22),)
    )
    (only,) = prunings([slow, again, result("fits", file(5))], budget)
    assert only.pruned_from == "slow"
    assert only.macs == pytest.approx(680 * 0.85 / 1.1, abs=1)
    enough = replace(again, untrained=(file(19),))
    assert not prunings([slow, again, replace(enough, macs=520), result("fits", file(5))], budget)


def test_where_nothing_fits_the_nearest_are_pruned_whatever_they_start_from() -> None:
    budget = Budget.parse("latency<=20ms")
    found = prunings([result("b", file(50)), result("a", file(25)), result("hopeless", file(500))], budget)
    assert [candidate.pruned_from for candidate in found] == ["a", "b"]
    assert not prunings([result("fits", file(5)), result("b", file(25))], budget)


def test_the_message_when_nothing_fits_names_the_limit_and_the_nearest() -> None:
    budget = Budget.parse("latency<=2ms,size<=1MB")
    results = [result("small", file(5)), result("large", file(9, 5_000_000))]
    misses = [nearest_file(one, one.untrained, budget) for one in results]
    message = unmet_message(misses, budget, trained=False)
    assert "latency<=2ms binds; the nearest, small (fp32 on onnxruntime), reaches latency 5 ms > 2 ms" in message
    assert "latency<=2ms is kept by 0 of 2, size<=1MB is kept by 1 of 2" in message


def test_the_front_holds_what_no_other_beats() -> None:
    kept = [file(10, 100, iou=0.6), file(20, 100, iou=0.7), file(30, 50, iou=0.6)]
    beaten = [file(20, 100, iou=0.65), file(10, 101, iou=0.6)]
    assert pareto_front([*beaten, *kept], front_costs) == kept


def test_equal_files_stand_on_the_front_together() -> None:
    assert len(pareto_front([file(10, iou=0.6), file(10, iou=0.6)], front_costs)) == 2


def test_a_latency_of_a_busy_machine_refuses_nobody_in_silence() -> None:
    budget = Budget.parse("latency<=5ms,size<=2MB")
    busy = result("slow", replace(file(latency=31), load=0.63))
    miss = nearest_file(busy, busy.untrained, budget)
    assert "63%" in miss.reason
    assert "63%" in unmet_message([miss], budget, trained=False)
    too_large = nearest_file(busy, busy.untrained, Budget.parse("size<=1kB"))
    assert "63%" not in too_large.reason, "sizes don't depend on others"
    quiet = result("slow", replace(file(latency=31), load=0.05))
    assert "%" not in nearest_file(quiet, quiet.untrained, budget).reason
