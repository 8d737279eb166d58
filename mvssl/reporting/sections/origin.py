"""Where the run comes from: its recipe, the versions, and the samples that could not be decoded."""

from typing import Any

import yaml

from mvssl.exporting.model_card import public
from mvssl.reporting.gather import Facts, short_path
from mvssl.reporting.html import el
from mvssl.reporting.sections import Section
from mvssl.text import counted
from mvssl.training.next_commands import overriding

MOST, SHORT = 20, 90  # undecodable samples listed; lines of a recipe that is shown unfolded


def origin(facts: Facts) -> Section:
    """The resolved recipe without this machine's folders, versions, and what bad.jsonl holds."""
    text = compact(public(facts.recipe, facts.name))
    recipe = el(
        "details",
        el("summary", "The recipe"),
        el("pre", el("code", text)),
        open=text.count("\n") <= SHORT,
    )
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    told = [el("p", f"Trained with {versions}." if versions else "Versions are not known: there is no versions.json.")]
    if facts.bad:
        told.append(el("p", f"{counted(len(facts.bad), 'sample')} could not be decoded; others took the place:"))
        told.append(el("ul", [el("li", _bad(row)) for row in facts.bad[:MOST]], class_="plain"))
        told += [el("p", f"and {len(facts.bad) - MOST} more, in bad.jsonl")] if len(facts.bad) > MOST else []
    again = f"mvssl train recipe.yaml {overriding('train.out', f'runs/{facts.name}')}"
    told.append(el("p", "The same run again: save the recipe as recipe.yaml, then ", el("code", again), class_="note"))
    return Section("origin", "Recipe and versions", el("div", recipe, told))


def compact(recipe: str) -> str:
    """A recipe in as few lines as read well: short lists in one, values that are not set left out."""
    return yaml.safe_dump(_set(yaml.safe_load(recipe)), sort_keys=False, default_flow_style=None, width=96)


def _set(tables: Any) -> Any:
    if isinstance(tables, dict):
        return {key: _set(value) for key, value in tables.items() if value not in (None, {}, [])}
    return [_set(value) for value in tables] if isinstance(tables, list) else tables


def _bad(row: dict[str, Any]) -> str:
    shard = short_path(row.get("shard"))
    return f"step {row.get('step')}: {shard} key {row.get('key')}, {row.get('column')}: {row.get('reason')}"
