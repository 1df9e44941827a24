"""A teacher that is there already, as a first recipe names it: with the pixel values and the classes that it needs."""

from __future__ import annotations

from importlib.util import find_spec

from segshrink.config import DatasetDescription, TeacherSource
from segshrink.files import expanded
from segshrink.formatting import flow_yaml
from segshrink.workflows.progress import Progress

# Crops that a teacher is tried on.
_CROPS = 8


def teacher_list(source: str) -> str:
    """List a teacher as a recipe does, wherever that may lie: a path in it, "FOLDER" or "onnx:FILE", gets absolute."""
    return flow_yaml([_absolute(source)])


def tried_teacher(source: str, description: DatasetDescription, progress: Progress) -> tuple[str, str]:
    """List a teacher as a recipe does, so that it does well on the labeled validation images.

    Returns:
        The list, in YAML; and what was found if the teacher does badly as it is but well with the pixel scaling, the
        band or class order that the list says, else nothing.

    Raises:
        SegshrinkError: It can't be opened, or doesn't fit the images.
    """
    if find_spec("torch") is None:  # nothing can be tried
        return teacher_list(source), ""
    from segshrink.data import open_dataset
    from segshrink.doctor import find_better_use
    from segshrink.training.hardware import use_free_threads
    from segshrink.user_code import trusted_functions

    plain, dataset = TeacherSource(source=_absolute(source)), open_dataset(description)
    if not dataset.val:
        return teacher_list(source), ""
    use_free_threads()

    def told(done: int, total: int, doing: str) -> None:
        progress("try the teacher", done, total, doing)

    with trusted_functions(plain.source):
        better = find_better_use(plain, dataset, images=_CROPS, progress=told)
    if better is None:
        return teacher_list(source), ""
    return flow_yaml([better.source.model_dump(mode="json", exclude_unset=True)]), better.finding.message


def _absolute(source: str) -> str:
    kind, _, name = source.rpartition(":")
    path = expanded(name)
    return f"{kind}:{path.resolve()}".removeprefix(":") if path.exists() else source
