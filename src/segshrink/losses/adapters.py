"""Small trainable modules that make a student's features comparable with its teacher's."""

from __future__ import annotations

from torch import nn

from segshrink.errors import ModelError


class ChannelAdapter(nn.Conv2d):
    """1x1 convolution without bias from the student's channels (N, Cs, H, W) to the teacher's (N, Ct, H, W).

    For the losses that need equal channel counts: ``hint``, ``cosine_hint``, ``pearson_hint``,
    ``channel_correlation``. It is trained by the student's optimizer and left out of the saved student. A layer like
    any other: under autocast it computes in half precision, unlike the losses.

    Args:
        student_channels: Cs ≥ 1.
        teacher_channels: Ct ≥ 1.

    Raises:
        ModelError: A channel count below 1.

    Source:
        Romero et al. 2015 (arXiv:1412.6550); for segmentation: Yang et al. 2022 (arXiv:2204.06986).
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        check_channels(student_channels, teacher_channels, "ChannelAdapter")
        super().__init__(student_channels, teacher_channels, kernel_size=1, bias=False)


def check_channels(student_channels: int, teacher_channels: int, module: str) -> None:
    """Refuse channel counts below 1.

    Raises:
        ModelError: A channel count below 1.
    """
    if min(student_channels, teacher_channels) < 1:
        raise ModelError(
            f"{module} needs at least 1 channel on both sides, found student_channels={student_channels} and "
            f"teacher_channels={teacher_channels}"
        )
