"""Strict tables: a boolean or a text is no number, and a fraction is no whole number.

in   the annotations of a pydantic model
out  the same model, which refuses values that pydantic would convert silently

Three conversions stay: a list to a tuple, `1e3` to the whole number 1000, and a whole number to a text.
"""

from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticCustomError, core_schema

# left to pydantic: keys of a dict, which are texts in YAML, and entries that are no schema
LEFT = {"metadata", "serialization", "default", "keys_schema", "cls", "config"}


def _strict(schema: Any, inside: bool = True) -> Any:
    """Return the schema with strict numbers and booleans; models inside it make their own schema strict."""
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
    """Return a whole number for 1e3; other values stay, and pydantic refuses 1.5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _text(value: Any) -> Any:
    """Return a text for a whole number such as 2024. Refuse 1.10, because YAML loses its last digit."""
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
    """A pydantic model that does not convert between numbers, booleans and texts."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return _strict(handler(source), inside=False)
