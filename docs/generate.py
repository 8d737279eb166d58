"""Write the parts of the reference that come from the code: recipe keys, options of views and objectives, commands.

in   the recipe schema, the signatures of the built-in views and objectives, the command line
out  Markdown files that pages in docs/reference include
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel
from typer.core import TyperGroup

from mvssl.bench.comparison import describe_machine, tabulate
from mvssl.cli.commands import app
from mvssl.objectives import OBJECTIVES
from mvssl.recipe import Recipe
from mvssl.recipe.options import options_of
from mvssl.recipe.schema import Column
from mvssl.views import VIEWS

LARGE = 10**6  # limits above it only catch typing errors, and are not shown
WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "array": "list"}
SPEED = Path(__file__).parent / "speed"
TABLES = ("data", "views", "encoder", "objective", "optim", "train", "evaluate")


def write(folder: Path) -> None:
    """Write one Markdown file per part into `folder`."""
    folder.mkdir(exist_ok=True)
    parts = {
        "recipe": recipe_keys(),
        "views": options(VIEWS),
        "objectives": options(OBJECTIVES),
        "commands": commands(),
        **{f"speed_{file.stem}": comparison(file) for file in sorted(SPEED.glob("*.json"))},
    }
    for name, text in parts.items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def recipe_keys() -> str:
    """Return a section per table of the recipe with its keys, types, defaults and meanings."""
    schema = Recipe.model_json_schema()
    sections = []
    for name in TABLES:
        table = schema["properties"][name]
        reference = next(_references(table))
        sections.append(_section(f"`{name}`", schema, reference))
        if name == "data":
            sections.append(_section("A column of `data.columns`, and `data.label`", schema, Column.__name__))
        if name == "evaluate":
            sections.append(_section("`evaluate.finetune`", schema, "Finetune"))
    return "\n\n".join(sections) + "\n"


def _references(part: Any):
    """Yield the names of the definitions that a part of the schema refers to."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].rpartition("/")[2]
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


def _section(title: str, schema: dict[str, Any], name: str) -> str:
    definition = schema["$defs"][name]
    lines = [f"## {title}", "", definition.get("description", ""), "", "| key | type | default | meaning |"]
    lines.append("|---|---|---|---|")
    for key, value in definition["properties"].items():
        required = key in definition.get("required", [])
        default = "required" if required else f"`{_default(value.get('default'))}`"
        lines.append(_row(f"`{key}`", _kind(value), default, value.get("description", "")))
    return "\n".join(lines)


def _default(value: Any) -> str:
    """Return a default as a recipe spells it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_default, value))}]"
    return "{}" if isinstance(value, BaseModel) else str(value)


def _kind(value: dict[str, Any], plural: bool = False) -> str:
    """Return the type of a key in words, with its range."""
    if "enum" in value or "const" in value:
        return ", ".join(f"`{choice}`" for choice in value.get("enum", [value.get("const")]))
    if "$ref" in value:
        return "table"
    if "anyOf" in value:
        kinds = [_kind(choice, plural) for choice in value["anyOf"] if choice.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    kind = value.get("type", "any")
    if kind == "array":
        items = value.get("items") or (value.get("prefixItems") or [{}])[0]
        return f"list{'s' * plural} of {_kind(items, plural=True)}"
    if kind == "object":
        return "table"
    limits = [
        f"{sign} {value[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if key in value and value[key] < LARGE
    ]
    name = WORDS.get(kind, kind) + "s" * (plural and kind != "boolean")
    return f"{name} {' and '.join(limits)}".rstrip()


def options(classes: dict[str, type]) -> str:
    """Return a list of the options of each class with type and default, from the signatures."""
    sections = []
    for name, made in classes.items():
        table = options_of(made).model_json_schema()
        lines = [f"### `name: {name}`", "", "| option | type | default |", "|---|---|---|"]
        required = table.get("required", [])
        for key, value in table.get("properties", {}).items():
            default = "required" if key in required else f"`{_default(value.get('default'))}`"
            lines.append(_row(f"`{key}`", _kind(value), default))
        sections.append("\n".join(lines))
    return "\n\n".join(sections) + "\n"


def commands() -> str:
    """Return a section per command with its usage, arguments and options."""
    sections = []
    for name, command in _list_commands(typer.main.get_command(app)):
        parameters = [parameter for parameter in command.params if parameter.name != "help"]
        arguments = [_spelled(parameter) for parameter in parameters if not _is_option(parameter)]
        lines = [f"## mvssl {name}", "", " ".join((command.help or "").split()), ""]
        lines += ["```text", " ".join([f"mvssl {name}", *arguments, "[OPTIONS]"]), "```", ""]
        lines += ["| argument or option | default | meaning |", "|---|---|---|"]
        for parameter in parameters:
            required, default = parameter.required, parameter.default
            shown = "required" if required else "" if default in (None, [], ()) else f"`{_default(default)}`"
            lines.append(_row(f"`{_spelled(parameter)}`", shown, parameter.help or ""))
        sections.append("\n".join(lines))
    return "\n\n".join(sections) + "\n"


def _list_commands(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield each command with its words; those of a group have two, such as `bench views`."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from ((f"{name} {verb}", inner) for verb, inner in command.commands.items())
        else:
            yield name, command


def comparison(file: Path) -> str:
    """Return the table of a benchmark from its JSON, the bottleneck and the machine."""
    result = json.loads(file.read_text())
    head, rows = tabulate(result)
    lines = [_row(*head), "|---|" + "--:|" * (len(head) - 1), *(_row(*row) for row in rows), ""]
    versions = ", ".join(f"{name} {result['versions'][name]}" for name in ("torch", "kornia", "torchvision"))
    lines += [f"Bottleneck: {result['bottleneck']}.", "", f"{describe_machine(result)}; {versions}."]
    return "\n".join(lines) + "\n"


def _is_option(parameter: Any) -> bool:
    return parameter.param_type_name == "option"


def _spelled(parameter: Any) -> str:
    """Return how an argument or option is written on the command line."""
    if not _is_option(parameter):
        return parameter.metavar or parameter.name.upper()
    names = "/".join([*parameter.opts, *parameter.secondary_opts])
    return f"{names} {parameter.metavar}" if parameter.metavar else names


def _row(*cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
