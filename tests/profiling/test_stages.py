"""What the stages of networks cost."""

from __future__ import annotations

import pytest

from segshrink.classes import ClassMap
from segshrink.models import build_model, count_parameters
from segshrink.profiling.parameters_and_macs import count_macs
from segshrink.profiling.stages import count_stages

CLASSES = ClassMap.build(["land", "water", "road"])


@pytest.mark.parametrize(
    ("network", "options"),
    [("mobile", {}), ("unet", {"width": 4}), ("smp:DeepLabV3Plus/mobilenet_v2", {}), ("smp:Segformer/mit_b0", {})],
)
def test_stages_sum_to_the_whole_network(network: str, options: dict[str, int]) -> None:
    model = build_model(network, CLASSES, options=options)
    stages = count_stages(model, size=128)
    assert sum(stage.parameters for stage in stages) == count_parameters(model)
    assert sum(stage.macs for stage in stages) == count_macs(model, size=128)


def test_stages_of_a_known_network() -> None:
    stages = count_stages(build_model("unet", CLASSES, options={"width": 4, "depth": 3}), size=64)
    assert [(stage.part, stage.stride, stage.channels) for stage in stages] == [
        *(("encoder", 1, 4), ("encoder", 2, 8), ("encoder", 4, 16)),
        *(("decoder", 2, 8), ("decoder", 1, 3)),
    ]
    # Two convolutions of 3 x 3 with batch norm, from 3 to 4 and from 4 to 4 channels.
    assert stages[0].parameters == (3 * 4 + 4 * 4) * 9 + 2 * 2 * 4
    assert stages[0].macs == (3 * 4 + 4 * 4) * 9 * 64 * 64
