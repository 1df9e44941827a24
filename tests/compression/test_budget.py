from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segshrink.compression.budget import Budget, show
from segshrink.errors import ConfigError

UPPER = {
    "latency": {"ms": 1.0, "s": 1e3},
    "size": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9},
    "memory": {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9},
    "parameters": {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9},
    "macs": {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9},
    "drop": {"": 1.0},
}
numbers = st.integers(1, 99_999).map(lambda cents: cents / 100)


@st.composite
def limits(draw: st.DrawFn) -> tuple[str, str, float]:
    """A limit as text, its name, and its value in base units."""
    name = draw(st.sampled_from([*UPPER, "miou"]))
    if name == "miou":
        share = draw(st.integers(1, 100)) / 100
        return f"miou>={share}", name, share
    number = draw(numbers)
    unit = draw(st.sampled_from(list(UPPER[name])))
    space = draw(st.sampled_from(["", " "]))
    return f"{name}{space}<={space}{number}{space}{unit}", name, number * UPPER[name][unit]


@given(st.lists(limits(), min_size=1, max_size=7, unique_by=lambda one: one[1]))
def test_a_budget_says_what_was_written_and_reads_itself_back(parts: list[tuple[str, str, float]]) -> None:
    budget = Budget.parse(", ".join(text for text, _, _ in parts))
    assert [limit.name for limit in budget.limits] == [name for _, name, _ in parts]
    for _, name, value in parts:
        assert budget.limit(name) == pytest.approx(value)
    again = Budget.parse(str(budget))
    assert [limit.name for limit in again.limits] == [limit.name for limit in budget.limits]
    assert [limit.value for limit in again.limits] == pytest.approx([limit.value for limit in budget.limits])


@given(limits(), numbers)
def test_a_limit_is_kept_on_one_side_only_and_the_excess_grows_beyond_it(
    part: tuple[str, str, float], beyond: float
) -> None:
    (limit,) = Budget.parse(part[0]).limits
    sign = 1 if limit.quantity.highest else -1
    assert limit.keeps(limit.value)
    assert limit.keeps(limit.value - sign * beyond)
    assert not limit.keeps(limit.value + sign * beyond)
    assert limit.excess(limit.value - sign * beyond) == 0
    assert 0 < limit.excess(limit.value + sign * beyond) < limit.excess(limit.value + 2 * sign * beyond)


def test_the_budget_of_the_documentation() -> None:
    budget = Budget.parse("latency<=20ms,size<=1MB,memory<=400MB,drop<=1.0")
    assert str(budget) == "latency<=20ms,size<=1MB,memory<=400MB,drop<=1"
    values = {"latency": 31.0, "size": 0.5e6, "memory": 500e6, "drop": 1.7}
    violations = budget.violations(values)
    assert [str(one) for one in violations] == [
        "latency 31 ms > 20 ms", "memory 500 MB > 400 MB", "drop 1.70 points > 1.00 points",
    ]  # fmt: skip
    assert max(violations, key=lambda violation: violation.excess).limit.name == "latency"
    assert [limit.name for limit in budget.untrained().limits] == ["latency", "size", "memory"]
    # What isn't known yet is not judged.
    assert budget.violations({"latency": 20.0, "drop": None}) == ()


def test_other_ways_to_write_the_same() -> None:
    assert Budget.parse("SIZE ≤ 600kb") == Budget.parse("size<=0.6MB")
    assert Budget.parse("miou>=60%").limit("miou") == pytest.approx(Budget.parse("mIoU>=0.6").limit("miou") or 0)
    assert Budget.parse("latency<=0.02s").limit("latency") == 20
    assert Budget.parse("drop<=0").limit("drop") == 0


def test_a_lower_limit_and_values_that_look_alike() -> None:
    (miou,) = Budget.parse("miou>=0.6").limits
    assert not miou.keeps(0.599)
    assert miou.excess(0.55) == pytest.approx(0.5)  # five points are half as bad as twice the latency
    assert miou.compared(0.55) == "0.550 < 0.600"
    (latency,) = Budget.parse("latency<=20ms").limits
    assert latency.compared(20.004) == "20.004 ms > 20 ms"


def test_a_negative_drop_asks_for_a_better_model_than_the_teacher() -> None:
    budget = Budget.parse("drop<=-1")
    assert Budget.parse(str(budget)) == budget
    assert not budget.violations({"drop": -1.2})
    (violation,) = budget.violations({"drop": 0.5})
    assert violation.excess == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the budget is empty"),
        (" , ", "the budget is empty"),
        ("latency<=20ms,", "a comma with no limit beside it"),
        ("latenzy<=20ms", "unknown limit 'latenzy'; did you mean 'latency'?"),
        ("<=20ms", "nothing is named"),
        ("latency<=20m", "unknown unit 'm'; did you mean 'ms'?"),
        ("latency<=20", "has no unit; write one of ms, s: latency<=20ms"),
        ("size<=1MiB", "decimal: 1 MB is 1,000,000 bytes; did you mean 'MB'?"),
        ("size<=1", "has no unit; write one of B, kB, MB, GB"),
        ("latency>=20ms", "latency is limited by a highest value; write latency<=20ms"),
        ("latency<20ms", "uses '<', but latency is limited by a highest value"),
        ("latency==20ms", "uses '=='"),
        ("miou<=0.6", "miou is limited by a lowest value; write miou>=0.6"),
        ("miou>=60", "miou is a share of at most 1"),
        ("miou>=120%", "miou is a share of at most 1"),
        ("latency", "'latency' in the budget compares nothing; write a limit such as latency<=20ms"),
        ("drop<=1,5", "'5' in the budget compares nothing"),
        ("latency<=", "has no value; write latency<=20ms"),
        ("latency<=fast", "'fast' is no number"),
        ("latency<=-20ms", "latency is always above 0"),
        ("drop<=-101", "over 100 points"),
        ("size<=0MB", "size is always above 0"),
        ("miou>=-0.5", "miou is always above 0"),
        ("size<=1e400MB", "too large a number"),
        ("size<=1MB,drop<=1,size<=2MB", "limits size twice (size<=1MB and size<=2MB)"),
    ],
)
def test_a_wrong_budget_gets_one_clear_sentence(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Budget.parse(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_any_text_is_a_budget_or_a_sentence(text: str) -> None:
    try:
        budget = Budget.parse(text)
    except ConfigError:
        return
    assert budget.limits


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("latency", 31.04, "31 ms"),
        ("latency", 9.876, "9.88 ms"),
        ("size", 598_321, "598 kB"),
        ("size", 1_240_000, "1.24 MB"),
        ("parameters", 475_821, "476 k"),
        ("parameters", 321, "321"),
        ("macs", 1.34e9, "1.34 G"),
        ("drop", 1.72, "1.72 points"),
        ("miou", 0.6321, "0.632"),
        ("memory", 123.4e6, "123 MB"),
    ],
)
def test_values_are_shown_with_three_digits(name: str, value: float, shown: str) -> None:
    assert show(name, value) == shown


def test_budgets_need_no_torch() -> None:
    code = (
        "import sys\n"
        "from segshrink.compression.budget import Budget\n"
        "from segshrink.compression.search import compress\n"
        "Budget.parse('drop<=1'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
