"""Puts the parts that web pages carry into the package when it is built: see ``tools/web/bundle.py``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WebParts(BuildHookInterface):  # type: ignore[type-arg]
    """Fetches them before a wheel, an editable install or an archive of the sources is made.

    An archive of the sources without them is refused: wheels of a release are made from it. Elsewhere a machine that
    doesn't reach npm's registry gets a package without them, whose only loss is ``export --format web``.
    """

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch what is missing."""
        sys.path.insert(0, str(Path(self.root) / "tools" / "web"))
        try:
            from bundle import bundle

            bundle()
        except OSError as error:
            if self.target_name == "sdist":
                raise
            self.app.display_warning(
                f"npm's registry can't be reached ({error}): this package can't `export --format web`; in a clone, "
                "run `make web` later"
            )
        finally:
            sys.path.pop(0)
