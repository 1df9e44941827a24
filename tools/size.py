"""Print the lines of code of each room, without docstrings, comments and blank lines: ``make size``."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from pathlib import Path

_NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def code_lines(path: Path) -> int:
    """Return how many lines of a file hold code."""
    text = path.read_text(encoding="utf-8")
    documentation: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        # A text that stands alone is a docstring, of a module, class, function or attribute.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documentation.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documentation)


def main() -> None:
    """Print a line for each room of the package, its files counted together, and the sum."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "src/segshrink")
    rooms: Counter[str] = Counter()
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root).parts
        rooms[inside[0] if len(inside) > 1 else "(ground)"] += code_lines(path)
    for room, count in sorted(rooms.items()):
        print(f"{room:20}{count:8,}")
    print(f"{'all':20}{rooms.total():8,}")


if __name__ == "__main__":
    main()
