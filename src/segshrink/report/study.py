"""The page of a hyper-parameter search: how it went, what mattered, every trial."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from segshrink import formatting
from segshrink.report.panels import LIGHT, Panel, plain_logarithmic, slug
from segshrink.report.rendering import figure_files, render
from segshrink.study_records import StudyRecord, TrialRecord, TuningRecord

# What an objective is called and how it is written; of all but the first, less is better.
_UNITS = {
    "miou": ("validation mIoU", formatting.score),
    "latency": ("latency", formatting.milliseconds),
    "parameters": ("parameters", formatting.scaled),
    "macs": ("multiply-adds", formatting.scaled),
}
_HEADINGS = (
    ("history", "History", "Each point is a trial, in the order begun; the line is the best so far."),
    ("pareto", "Trade-offs", "Each point is a trial; filled ones are beaten by no other in every objective."),
    (
        "importance",
        "What mattered",
        "Each value's share of what all of them change among the better trials (PED-ANOVA). With few trials, a hint.",
    ),
    ("slices", "Each value", "Each point is a trial: what it reached over what it tried."),
    ("curves", "Trainings", "Validation mIoU over the share of the training that is done."),
)
_LONGEST_NAME = 22
# Parameters that tell nothing without the section that they stand in.
_UNCLEAR = ("id", "name", "scale", "size", "weight")


def study_page(study: TuningRecord) -> str:
    """Return the page of a study."""
    ended = sum(len(each.finished) for each in study.studies)
    return render(
        "study.html",
        study=study,
        sections=_sections(study),
        title=f"Hyper-parameters of {study.name.rpartition('-')[0]} on {study.data}",
        sentence=" ".join(_result(study, each) for each in study.studies),
        caveat="Trials were chosen by the images that judged them, so the best score is too good: train its recipe "
        "and the original with new seeds, and judge both on images that no trial saw.",
        notice=_busy_notice(study),
        progress=f"{ended} of {study.trials * len(study.studies)} trials have ended.",
        headings=_HEADINGS,
        facts=_facts(study),
        tables=[_table(study, each) for each in study.studies],
    )


def study_files(study: TuningRecord) -> dict[str, bytes]:
    """Return the figures by the names of their files; none while trials run, when the page is written often."""
    panels = [panel for panels in _sections(study).values() for panel in panels]
    return {} if study.status == "running" else figure_files(panels)


def _sections(study: TuningRecord) -> dict[str, list[Panel]]:
    places = range(len(study.objectives))
    return {
        "history": [_history(study, place) for place in places],
        "pareto": [_pareto(study, place) for place in places[1:]],
        "importance": [_importance(study, place) for place in places if _weighed(study, place)],
        "slices": [_slice(study, param) for param in _varied(study)],
        "curves": [_curves(study)] if any(trial.curve for each in study.studies for trial in each.trials) else [],
    }


def trial_cells(study: TuningRecord, trial: TrialRecord) -> list[str]:
    """Return a trial as texts under ``trial_headings``."""
    values = [
        _UNITS[name][1](trial.values[place]) if place < len(trial.values) else formatting.NOTHING
        for place, name in enumerate(study.objectives)
    ]
    state = f"{trial.state}: {trial.reason}" if trial.reason else trial.state
    number = f"{trial.number} (recipe)" if trial.recipe else str(trial.number)
    tried = [_shown(trial.params[param]) if param in trial.params else formatting.NOTHING for param in _params(study)]
    return [number, state, *values, formatting.duration(trial.seconds), *tried]


def trial_headings(study: TuningRecord) -> list[str]:
    """Return the headings of a table of trials."""
    return ["trial", "state", *(_UNITS[name][0] for name in study.objectives), "time", *map(_short, _params(study))]


def best_first(study: TuningRecord, each: StudyRecord) -> list[TrialRecord]:
    """Return the trials by falling first objective, those without one at the end."""
    sign = -1 if study.objectives[0] == "miou" else 1
    return sorted(each.trials, key=lambda trial: (trial.state != "complete", *(sign * v for v in trial.values[:1])))


def _result(study: TuningRecord, each: StudyRecord) -> str:
    """Say what the best trial of a role reached, beside the recipe itself."""
    best, own = each.trial(each.best), next((trial for trial in each.trials if trial.recipe and trial.values), None)
    if best is None:
        return f"No trial of the {each.role} is complete yet."
    name, show = _UNITS[study.objectives[0]]
    text = f"The best of {len(each.finished)} trials of the {each.role} reaches {show(best.values[0])} {name}"
    if own is None:
        return f"{text} (trial {best.number})."
    beside = "itself" if own is best else f"as it is reaches {show(own.values[0])}"
    return f"{text} (trial {best.number}); the recipe {beside}." if own is not best else f"{text}: the recipe {beside}."


def _busy_notice(study: TuningRecord) -> str | None:
    """Say that latencies were measured while others, such as workers that trained, kept the machine busy."""
    loads = [trial.load for each in study.studies for trial in each.trials]
    busy = [load.others or 0.0 for load in loads if load is not None and load.busy]
    if "latency" not in study.objectives or not busy:
        return None
    return (
        f"While {len(busy)} trials were timed, other programs, such as workers that trained, took up to "
        f"{formatting.percent(max(busy))} of the cores, so their latencies are too long: tune with one worker on a "
        "quiet machine, or take parameters or macs for an objective."
    )


def _facts(study: TuningRecord) -> list[tuple[str, str]]:
    states = [trial.state for each in study.studies for trial in each.trials]
    pruned = f"{states.count('pruned')} stopped early, {states.count('fail')} failed"
    return [
        ("Trials", f"{study.trials} for each of {formatting.listing([each.role for each in study.studies])}; {pruned}"),
        ("Sampler", study.sampler),
        ("Pruner", study.pruner if len(study.objectives) == 1 else "none"),
        ("Storage", study.storage),
        ("Updated", formatting.day(study.updated)),
    ]


def _table(study: TuningRecord, each: StudyRecord) -> dict[str, Any]:
    rows = [(trial.number == each.best, trial_cells(study, trial)) for trial in best_first(study, each)]
    return {"role": each.role, "headings": trial_headings(study), "rows": rows}


def _params(study: TuningRecord) -> list[str]:
    return list(dict.fromkeys(param for each in study.studies for trial in each.trials for param in trial.params))


def _varied(study: TuningRecord) -> list[str]:
    return [param for param in _params(study) if any(_points(each, param, 0) for each in study.studies)]


def _weighed(study: TuningRecord, place: int) -> bool:
    return any(place < len(each.importance) and each.importance[place] for each in study.studies)


def _points(each: StudyRecord, param: str, place: int) -> list[tuple[Any, float]]:
    """Return (what was tried, what it reached) of the complete trials."""
    complete = [trial for trial in each.trials if trial.state == "complete" and param in trial.params]
    return [(trial.params[param], trial.values[place]) for trial in complete]


def _short(param: str) -> str:
    """Return a parameter's place without the sections that say nothing more."""
    owner, _, name = param.rpartition(".")
    name = f"{owner.rpartition('.')[2]} {name}" if name in _UNCLEAR else name
    return f"term {name}" if name[0].isdigit() else name.replace("_", " ")


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _color(each: StudyRecord) -> str:
    return LIGHT.roles[each.role][0]


def _history(study: TuningRecord, place: int) -> Panel:
    name = _UNITS[study.objectives[place]][0]
    better = max if study.objectives[place] == "miou" else min

    def draw(axes: Axes) -> None:
        for each in study.studies:
            ended = [(trial.number, trial.values[place]) for trial in each.trials if place < len(trial.values)]
            complete = [(t.number, t.values[place]) for t in each.trials if t.state == "complete"]
            axes.plot(*_columns(ended), "o", color=_color(each), markersize=4, alpha=0.6)
            if complete:
                numbers, values = _columns(complete)
                best = list(accumulate(values, better))
                axes.step(numbers, best, where="post", color=_color(each), linewidth=1.9, label=f"best {each.role}")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axes.set(xlabel="trial", ylabel=name)

    title = name[:1].upper() + name[1:]
    return Panel(f"history_{study.objectives[place]}", title, f"{title} of each trial.", draw, leaking=study.leaking)


def _pareto(study: TuningRecord, place: int) -> Panel:
    first, other = _UNITS[study.objectives[0]][0], _UNITS[study.objectives[place]][0]

    def draw(axes: Axes) -> None:
        for each in study.studies:
            complete = [trial for trial in each.trials if trial.state == "complete"]
            for kind, label, face in ((True, f"{each.role}, on the front", _color(each)), (False, None, "none")):
                shown = [(t.values[place], t.values[0]) for t in complete if (t.number in each.front) == kind]
                axes.plot(*_columns(shown), "o", color=_color(each), markerfacecolor=face, markersize=6, label=label)
        axes.set(xlabel=other, ylabel=first)

    name = study.objectives[place]
    title = f"{first[:1].upper()}{first[1:]} over {other}"
    return Panel(f"pareto_{name}", title, f"{title} of each trial.", draw, leaking=study.leaking)


def _importance(study: TuningRecord, place: int) -> Panel:
    shares = [each.importance[place] if place < len(each.importance) else {} for each in study.studies]
    params = sorted(
        dict.fromkeys(param for share in shares for param in share),
        key=lambda param: max(s.get(param, 0) for s in shares),
    )
    height = 0.8 / len(shares)

    def draw(axes: Axes) -> None:
        for number, (each, share) in enumerate(zip(study.studies, shares, strict=True)):
            rows = [row + 0.4 - height * (number + 0.5) for row in range(len(params))]
            axes.barh(rows, [share.get(param, 0.0) for param in params], height, color=_color(each), label=each.role)
        axes.set_yticks(range(len(params)), [_short(param)[:_LONGEST_NAME] for param in params])
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("share")

    name = study.objectives[place]
    words = "; ".join(f"{_short(param)} {max(s.get(param, 0) for s in shares):.2f}" for param in reversed(params))
    size = (4.2, 1.0 + 0.4 * len(params))
    return Panel(f"importance_{name}", f"For {_UNITS[name][0]}", f"Importance: {words}.", draw, size)


def _slice(study: TuningRecord, param: str) -> Panel:
    name = _UNITS[study.objectives[0]][0]
    points = [(each, _points(each, param, 0)) for each in study.studies]
    tried = [value for _, pairs in points for value, _ in pairs]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in tried)

    def draw(axes: Axes) -> None:
        for each, pairs in filter(lambda point: point[1], points):
            shown = pairs if numbers else [(str(value), reached) for value, reached in pairs]
            axes.plot(*_columns(shown), "o", color=_color(each), markersize=5, alpha=0.7, label=each.role)
        if numbers and min(tried) > 0 and max(tried) / min(tried) > 10:
            plain_logarithmic(axes, subs=(1,))
        axes.set(xlabel=_short(param), ylabel=name)

    title = _short(param)
    return Panel(f"slice_{slug(param)}", title, f"{name} over {title}.", draw, leaking=study.leaking)


def _curves(study: TuningRecord) -> Panel:
    def draw(axes: Axes) -> None:
        for each in study.studies:
            for trial in each.trials:
                strong = trial.number == each.best
                look: dict[str, Any] = {"linewidth": 2.2 if strong else 0.9, "alpha": 1.0 if strong else 0.35}
                label = f"best {each.role}" if strong else None
                axes.plot(*_columns(trial.curve), color=_color(each), label=label, **look)
        axes.set(xlabel="percent of the training", ylabel="validation mIoU")

    alt = "Validation mIoU of each trial over its training."
    return Panel("trainings", "Validation mIoU", alt, draw, (7.6, 3.2), wide=True, leaking=study.leaking)


def _columns(pairs: Sequence[tuple[Any, float]]) -> tuple[list[Any], list[float]]:
    return [first for first, _ in pairs], [second for _, second in pairs]
