"""YAML as recipes use it: no Python objects, no key given twice, 1e-3 is a number."""

from __future__ import annotations

import re
from typing import Any

import yaml

from segshrink.errors import ConfigError

# YAML 1.1 wants "1.0e-3"; people write "1e-3", which PyYAML would take for a text.
_FLOAT = re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$")
_FLOAT_TAG = "tag:yaml.org,2002:float"
_FLOAT_STARTS = list("-+0123456789")


class _Loader(yaml.SafeLoader):
    """The safe loader, which besides refuses keys that are given twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key '{key.value}' is given twice"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
        return node


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which puts those texts in quotes that ``_Loader`` would take for numbers."""


_Loader.add_implicit_resolver(_FLOAT_TAG, _FLOAT, _FLOAT_STARTS)
_Dumper.add_implicit_resolver(_FLOAT_TAG, _FLOAT, _FLOAT_STARTS)


def parse_yaml(text: str, source: str) -> Any:
    """Read YAML without trusting it.

    Args:
        text: The YAML.
        source: Where it came from, for errors.

    Raises:
        ConfigError: It isn't YAML, asks for a Python object, gives a key twice, or is nested too deep.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader with more refusals
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ConfigError(f"{source}{line} is not valid YAML: {reason}; correct it") from error
    except RecursionError as error:
        raise ConfigError(f"{source} is not valid YAML: it is nested too deep; correct it") from error
    except ValueError as error:
        # Texts that look like dates or numbers but aren't.
        raise ConfigError(f"{source} is not valid YAML: {error}; put texts that look like dates in quotes") from error


def format_yaml(value: Any) -> str:
    """Write plain values as YAML that ``parse_yaml`` reads back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
