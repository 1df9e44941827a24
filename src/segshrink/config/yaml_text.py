"""YAML as recipes use it: no Python objects, no key given twice, no aliases without end, 1e-3 is a number."""

from __future__ import annotations

import re
from typing import Any

import yaml

from segshrink.errors import ConfigError

# YAML 1.1 wants "1.0e-3"; people write "1e-3", which PyYAML would take for a text.
_FLOAT = re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$")
_FLOAT_TAG = "tag:yaml.org,2002:float"
_FLOAT_STARTS = list("-+0123456789")
# YAML 1.1 reads 010 as 8 and 1:30 as 90, which nobody means.
_AMBIGUOUS = re.compile(r"^[-+]?(0[0-7_]+|[0-9][0-9_]*(:[0-9_.]+)+)$")
# Digits of a number, levels, and values that aliases may repeat.
_DIGITS, _DEPTH, _REPEATED = 40, 50, 100_000


class _Loader(yaml.SafeLoader):
    """The safe loader, which besides refuses keys that are given twice."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    problem = f"the key '{key.value}' is given twice"
                    raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
                keys.add(key.value)
        return node

    def compose_document(self) -> yaml.Node | None:
        """Refuse what would grow without end when it is written out, and texts that no file or name can hold."""
        node = super().compose_document()
        sizes: dict[int, int] = {}
        if node is not None and _written_out(node, sizes, ()) - len(sizes) > _REPEATED:
            raise yaml.constructor.ConstructorError(problem="its aliases repeat too much; write it out")
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        """Construct a number that can't be taken for another."""
        text = str(self.construct_scalar(node))
        ambiguous = _AMBIGUOUS.match(text) and (":" in text or int(text, 8) != int(text))
        if len(text) > _DIGITS or ambiguous:
            problem = f"{text[:_DIGITS]} is no plain number; write it without leading zeros, or in quotes if it is text"
            raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
        number: int | float = (
            self.construct_yaml_float(node) if node.tag == _FLOAT_TAG else self.construct_yaml_int(node)
        )
        return number


def _written_out(node: yaml.Node, sizes: dict[int, int], within: tuple[int, ...]) -> int:
    """Return how many values a node has with its aliases written out; ``sizes`` holds those of nodes seen before."""
    if id(node) in sizes:
        return sizes[id(node)]
    problem = None
    if id(node) in within:
        problem = "an alias stands inside of what it repeats"
    elif len(within) > _DEPTH:
        problem = f"it is nested too deep (more than {_DEPTH} levels)"
    elif isinstance(node, yaml.ScalarNode) and re.search("[\\0\ud800-\udfff]", node.value):
        problem = "a text holds a character that can't be kept (NUL, or a byte of a file name that isn't UTF-8)"
    if problem:
        raise yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
    children = [] if isinstance(node, yaml.ScalarNode) else node.value
    if isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    sizes[id(node)] = 1 + sum(_written_out(child, sizes, (*within, id(node))) for child in children)
    return sizes[id(node)]


class _Dumper(yaml.SafeDumper):
    """The safe dumper, which puts those texts in quotes that ``_Loader`` would take for numbers."""


for _tag in (_FLOAT_TAG, "tag:yaml.org,2002:int"):
    _Loader.add_constructor(_tag, _Loader.construct_number)
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
    except (LookupError, AttributeError, TypeError) as error:
        raise ConfigError(f"{source} is not valid YAML: a value isn't what its !!tag says; leave tags out") from error
    except (ValueError, OverflowError) as error:
        # Texts that look like dates but aren't.
        raise ConfigError(f"{source} is not valid YAML: {error}; put texts that look like dates in quotes") from error


def format_yaml(value: Any) -> str:
    """Write plain values as YAML that ``parse_yaml`` reads back."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
