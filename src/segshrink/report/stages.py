"""The stages of networks side by side: channels, parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segshrink.formatting import NOTHING, count, scaled
from segshrink.run_records import StageRecord


@dataclass(frozen=True)
class StageRow:
    """A stage of several networks; ``cells`` are channels, parameters and multiply-adds of each as text."""

    name: str
    cells: tuple[tuple[str, str, str], ...]


def stage_rows(networks: Mapping[str, Sequence[StageRecord]]) -> list[StageRow]:
    """Return a row for each stage that a network has, down the encoder and up the decoder, and their sum.

    Args:
        networks: Stages by the network's name.
    """
    by_place = [{(stage.part, stage.stride): stage for stage in stages} for stages in networks.values()]
    places = {place for stages in by_place for place in stages}
    encoder = sorted(place for place in places if place[0] == "encoder")
    decoder = sorted((place for place in places if place[0] == "decoder"), key=lambda place: -place[1])
    rows = [
        StageRow(f"{part}, 1/{stride}", tuple(_cells(stages.get((part, stride))) for stages in by_place))
        for part, stride in (*encoder, *decoder)
    ]
    sums = (
        ("", count(sum(stage.parameters for stage in stages)), scaled(sum(stage.macs for stage in stages)))
        for stages in networks.values()
    )
    return [*rows, StageRow("all", tuple(sums))]


def _cells(stage: StageRecord | None) -> tuple[str, str, str]:
    if stage is None:
        return NOTHING, NOTHING, NOTHING
    return count(stage.channels), count(stage.parameters), scaled(stage.macs)
