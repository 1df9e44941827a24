"""Commands that torchrun and srun start several times."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from segshrink.config import Learner, Recipe


def took_part(recipe: Recipe, learner: Learner | None) -> bool:
    """Take part in the trainings that another process leads, where torchrun or srun started this one beside it.

    Called before anything heavy is imported.

    Args:
        recipe: The recipe.
        learner: What of it the command trains.

    Raises:
        ConfigError: How the processes were started doesn't fit the recipe.
    """
    from segshrink.config.launch import Launch, check_launch
    from segshrink.errors import ConfigError

    if learner is None:
        return False
    try:
        launch = check_launch(learner.training, os.environ, batch_size=recipe.crops.batch_size)
    except ConfigError:
        if Launch.of(os.environ).rank == 0:
            raise
        raise typer.Exit(1) from None  # said once
    if launch.rank == 0:
        return False
    from segshrink.training.processes import follow

    follow()
    return True
