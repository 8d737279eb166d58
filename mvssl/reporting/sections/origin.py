"""Where the run comes from: its recipe, the versions, and the samples that could not be decoded."""

from typing import Any

import yaml

from mvssl.exporting.model_card import publishable_recipe
from mvssl.recipe.yaml_text import shell_override
from mvssl.reporting.content import Block, Folded, Item, Items, Paragraph
from mvssl.reporting.inputs import Inputs
from mvssl.reporting.run_files import short_path

MAX_BAD, MAX_LINES = 20, 90  # undecodable samples listed; lines of a recipe that is shown unfolded


def show_origin(inputs: Inputs) -> list[Block]:
    """Return the resolved recipe without the folders of this machine, the versions, and the content of bad.jsonl."""
    facts = inputs.facts
    recipe = compact_recipe(publishable_recipe(facts.recipe, facts.name))
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    unknown = "Versions are not known: there is no versions.json."
    blocks: list[Block] = [
        Folded("The recipe", [Paragraph(recipe, "pre")], unfolded=recipe.count("\n") <= MAX_LINES),
        Paragraph(f"Trained with {versions}." if versions else unknown, ""),
    ]
    if facts.bad:
        count = len(facts.bad)
        blocks.append(Paragraph(f"{count} samples could not be decoded; other samples replaced them:", ""))
        blocks.append(Items([Item(_describe_bad(row), []) for row in facts.bad[:MAX_BAD]], "plain"))
        if count > MAX_BAD:
            blocks.append(Paragraph(f"and {count - MAX_BAD} more, in bad.jsonl", ""))
    command = f"mvssl train recipe.yaml {shell_override('train.out', f'runs/{facts.name}')}"
    return [*blocks, Paragraph("To train the same run again, save the recipe as recipe.yaml, then", command=command)]


def compact_recipe(recipe: str) -> str:
    """Return a recipe with short lists in one line and without keys that are not set."""
    return yaml.safe_dump(_drop_empty(yaml.safe_load(recipe)), sort_keys=False, default_flow_style=None, width=96)


def _drop_empty(tables: Any) -> Any:
    if isinstance(tables, dict):
        return {key: _drop_empty(value) for key, value in tables.items() if value not in (None, {}, [])}
    return [_drop_empty(value) for value in tables] if isinstance(tables, list) else tables


def _describe_bad(row: dict[str, Any]) -> str:
    shard = short_path(row.get("shard"))
    return f"step {row.get('step')}: {shard} key {row.get('key')}, {row.get('column')}: {row.get('reason')}"
