"""The terms of a student, from the recipe's distillation section."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from segshrink.config import Distillation, Term
from segshrink.errors import ConfigError
from segshrink.losses import REGISTRY, WeightedTerm, build_terms, preset_terms
from segshrink.losses.terms import Term as BuiltTerm
from segshrink.teachers import Teacher


def student_terms(
    distillation: Distillation, supervised: Sequence[Term], teacher: Teacher | None = None
) -> tuple[WeightedTerm, ...]:
    """Return the listed terms, the preset's, or alpha times the control's terms and (1 - alpha) times pixel KL.

    Args:
        distillation: The section.
        supervised: The control's terms.
        teacher: The teacher, when it is open already: what it can't serve is refused too.

    Raises:
        ConfigError: A term or the preset is wrong, both are given, no term can be weighted by confidence though the
            section says so, a term wants features that a cache of logits doesn't hold, or that a lower
            precision hides, or the teacher wants a cache, or a term something of the teacher, that isn't there.
    """
    terms = build_terms(_choices(distillation, supervised), confidence_weighting=distillation.confidence_weighting)
    if distillation.teacher_cache and (names := _on_features(terms)):
        raise ConfigError(
            f"distillation.teacher_cache keeps the teacher's logits, but {names} from its features; set "
            f"distillation.teacher_cache=false, or take terms on logits only: {_on_logits()}"
        )
    if distillation.precision != "auto" and (names := _on_features(terms)):
        raise ConfigError(
            f"distillation.precision={distillation.precision} may run the teacher in OpenVINO, which shows no "
            f"features, but {names} from its features; set it to auto, or take terms on logits only: {_on_logits()}"
        )
    if teacher is not None:
        check_teacher(teacher, terms, cached=bool(distillation.teacher_cache))
    return terms


def check_teacher(teacher: Teacher, terms: Sequence[WeightedTerm], *, cached: bool = False) -> None:
    """Refuse terms that this teacher can't serve.

    Args:
        teacher: The teacher.
        terms: What the student learns by.
        cached: Whether its answers about whole scenes will be cut like the images.

    Raises:
        ConfigError: A term wants features and the teacher is a black box, a term compares more classes than the teacher
            knows, or the teacher answers about whole scenes and isn't cached.
    """
    if teacher.whole_scenes and not cached:
        raise ConfigError(
            f"the teacher '{teacher.name}' answers about whole scenes, not about crops; set "
            "distillation.teacher_cache=true, so that its answers are cut like the images"
        )
    if teacher.module is None and (names := _on_features(terms)):
        raise ConfigError(
            f"the teacher '{teacher.name}' gives answers without features (a black box, several teachers, or one asked "
            f"with flips or scales), but {names} from features; take terms on logits: {_on_logits()}"
        )
    for _, term in terms:
        if term.least_classes > len(teacher.known):
            shared = ", ".join(teacher.classes.names[index] for index in teacher.known)
            raise ConfigError(
                f"the loss term '{term.name}' compares at least {term.least_classes} classes, but of the student's the "
                f"teacher '{teacher.name}' knows {shared} only; say in 'classes' which others it knows by another name"
            )


def teaching_temperature(terms: Sequence[WeightedTerm]) -> float | None:
    """Return the highest temperature that a teacher's answers are softened with; None where no term softens them."""
    temperatures = (temperature_of(term) for _, term in terms)
    return max((each for each in temperatures if each is not None), default=None)


def temperature_of(term: Term | BuiltTerm) -> float | None:
    """Return the temperature that a term softens the teacher's logits with; None where it doesn't."""
    loss = REGISTRY[term.name]
    if loss.compares == "features" or term.student or term.teacher:
        return None
    temperature: float | None = term.options.get("temperature", loss.default("temperature"))
    return temperature


def _choices(distillation: Distillation, supervised: Sequence[Term]) -> Sequence[Term]:
    if distillation.terms is not None and distillation.preset is not None:
        raise ConfigError("distillation has both 'preset' and 'terms'; a preset is a list of terms: keep one of them")
    if distillation.terms is not None:
        return distillation.terms
    if distillation.preset is not None:
        return preset_terms(distillation.preset, supervised)
    hard = [term.model_copy(update={"weight": distillation.alpha * term.weight}) for term in supervised]
    soft = Term(name="pixel_kl", weight=1 - distillation.alpha, options={"temperature": distillation.temperature})
    return [*hard, soft]


def _on_features(terms: Iterable[WeightedTerm]) -> str:
    labels = [term.label for _, term in terms if term.on_features]
    return f"{', '.join(labels)} learn{'s' if len(labels) == 1 else ''}" if labels else ""


def _on_logits() -> str:
    return ", ".join(name for name, loss in REGISTRY.items() if loss.compares in ("logits", "either"))
