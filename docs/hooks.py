"""Pages of the site that are made from the code: README, changelog, commands, recipe and data reference, schemas."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from segshrink.cli import main
from segshrink.config import DatasetDescription, Recipe

ROOT = Path(__file__).resolve().parents[1]
SCHEMAS = {"recipe": Recipe, "dataset": DatasetDescription}
_OF_DATA = ("ClassEntry", "DatasetDescription", "LabelDecisions", "Origin", "Split")
INTRODUCTIONS = {
    "recipe": "# Recipe\n\nEverything that a run depends on, in one YAML file. What is left out has its default.",
    "dataset": "# Data set description\n\nWhere images and masks are, and what the masks mean, in one YAML file.",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {
        "index.md": _moved((ROOT / "README.md").read_text(encoding="utf-8")),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "reference/commands.md": commands(),
    }
    for name, kind in SCHEMAS.items():
        pages[f"reference/{name}.md"] = reference(name, kind)
        pages[f"reference/{name}.schema.json"] = json.dumps(kind.model_json_schema(), indent=1)
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name files outside the site instead of linking to them."""
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+(?:benchmarks|configs|src|tests)/[^)]*\)", r"\1", markdown)


def commands() -> str:
    """Return the help of every verb as Markdown."""
    verbs = re.findall(r"^  ([a-z]+) ", _help().partition("Commands:\n")[2].partition("\n\n")[0], flags=re.MULTILINE)
    return "\n\n".join(["# Commands", *(f"## `segshrink {verb}`\n\n```text\n{_help(verb)}```" for verb in verbs)])


def _help(*verb: str) -> str:
    with redirect_stdout(StringIO()) as text:
        main([*verb, "--help"])
    return text.getvalue()


def reference(name: str, kind: type[BaseModel]) -> str:
    """Return a table of keys for a configuration class and for each section in it."""
    schema = kind.model_json_schema()
    editors = (
        f"Editors that know JSON schemas check it while you type: [{name}.schema.json]({name}.schema.json); for the "
        f"YAML language server, begin the file with `# yaml-language-server: $schema=/path/to/{name}.schema.json`."
    )
    parts = [INTRODUCTIONS[name], editors, *_table(schema, schema)]
    for title, section in schema.get("$defs", {}).items():
        if "properties" in section and (name == "dataset" or title not in _OF_DATA):
            parts += [f"## {title}", inspect.cleandoc(section.get("description", "")), *_table(section, schema)]
    return "\n\n".join(parts)


def _table(section: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    required = section.get("required", [])
    rows = ["| key | takes | default | meaning |", "|---|---|---|---|"]
    for key, field in section["properties"].items():
        default = f"`{json.dumps(field.get('default'))}`"
        if key in required or (isinstance(field.get("default"), dict) and field["default"]):
            default = "required" if key in required else "its defaults"
        field = {**schema["$defs"].get(field.get("$ref", "").rsplit("/", 1)[-1], {}), **field}
        text = " ".join(field.get("description", "").split()).replace("|", "\\|")
        rows.append(f"| `{key}` | {_kind(field)} | {default} | {text} |")
    yield "\n".join(rows)


def _kind(field: dict[str, Any]) -> str:
    if "$ref" in field:
        title = field["$ref"].rsplit("/", 1)[-1]
        return "[data set description](dataset.md)" if title == "DatasetDescription" else f"[{title}](#{title.lower()})"
    if "enum" in field or "const" in field:
        return ", ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_kind(part) for part in field["anyOf"]))
    if field.get("type") == "array":
        return f"list of {_kind(field['items'])}" if "items" in field else "list"
    return {"integer": "whole number", "string": "text", "boolean": "true, false", "object": "mapping"}.get(
        field.get("type", "anything"), field.get("type", "anything")
    )


def _moved(readme: str) -> str:
    """Let the README's links lead to the site's pages; files outside the site are only named."""
    inside = re.sub(r"\]\(docs/([^)]+)\)", r"](\1)", readme)
    inside = inside.replace("](CHANGELOG.md)", "](changelog.md)")
    return re.sub(r"\[([^\]]+)\]\((?:CONTRIBUTING\.md|(?:benchmarks|configs)/[^)]*)\)", r"\1", inside)
