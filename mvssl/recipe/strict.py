"""Tables whose values are what was written: no boolean for a number, no text for a number, no fraction cut off.

in   the annotations of a pydantic model
out  the same model, which refuses what pydantic would turn into something else in silence

A list still counts as a tuple, `1e3` as the whole number 1000, and a whole number as a text where text is wanted.
"""

from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticCustomError, core_schema

# keys of a dict are texts in YAML, so they are left to pydantic, as is what is no schema
LEFT = {"metadata", "serialization", "default", "keys_schema", "cls", "config"}


def _strict(schema: Any, inside: bool = True) -> Any:
    """The schema with strict numbers and booleans; models inside it see to themselves."""
    if isinstance(schema, list):
        return [_strict(part, inside) for part in schema]
    if not isinstance(schema, dict) or (inside and schema.get("type") == "model"):
        return schema
    inside = inside or schema.get("type") == "model"
    parts = {name: part if name in LEFT else _strict(part, inside) for name, part in schema.items()}
    match schema.get("type"):
        case "bool" | "float":
            return {**parts, "strict": True}
        case "int":
            return core_schema.no_info_before_validator_function(_whole, {**parts, "strict": True})  # pyright: ignore
        case "str":
            return core_schema.no_info_before_validator_function(_text, parts)  # pyright: ignore
    return parts


def _whole(value: Any) -> Any:
    """1e3 is a whole number, 1.5 is none."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Any) -> Any:
    """2024 is a name as well; how 1.10 was written is no longer known."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, bool | float):
        raise PydanticCustomError("needs_quotes", "text in quotes")
    if isinstance(value, str) and not _is_writable(value):
        raise PydanticCustomError("odd_text", "text without zero bytes and half characters")
    return value


def _is_writable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


class Strict(BaseModel):
    """A pydantic model that takes numbers, booleans and texts for nothing else."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return _strict(handler(source), inside=False)
