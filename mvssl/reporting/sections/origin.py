"""Where the run comes from: its recipe, the versions, and the samples that could not be decoded."""

from dataclasses import dataclass
from typing import Any

import yaml

from mvssl.exporting.model_card import public
from mvssl.recipe.yaml_text import shell_override
from mvssl.reporting.content import Section
from mvssl.reporting.facts import Facts, short_path

MAX_BAD, MAX_LINES = 20, 90  # undecodable samples listed; lines of a recipe that is shown unfolded


@dataclass(frozen=True)
class Origin(Section):
    name, title = "origin", "Recipe and versions"
    recipe: str
    unfolded: bool
    versions: str
    bad: list[str]  # the first of the samples that could not be decoded
    bad_count: int
    command: str  # that trains the same run again


def show_origin(facts: Facts) -> Origin:
    """Return the resolved recipe without the folders of this machine, the versions, and the content of bad.jsonl."""
    recipe = compact_recipe(public(facts.recipe, facts.name))
    return Origin(
        recipe,
        recipe.count("\n") <= MAX_LINES,
        ", ".join(f"{name} {version}" for name, version in facts.versions.items()),
        [_describe_bad(row) for row in facts.bad[:MAX_BAD]],
        len(facts.bad),
        f"mvssl train recipe.yaml {shell_override('train.out', f'runs/{facts.name}')}",
    )


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
