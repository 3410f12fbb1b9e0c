"""pydantic's errors in an operator's words, each at the file and line where the value stands."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.config.problems import Key, Problem, dotted
from shared.config.tree import Place, Tree

_KEY_ITSELF: Final = "[key]"
_WORDS: Final = {
    "missing": "this key is missing",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "set_type": "must be a list",
    "frozen_set_type": "must be a list",
    "dict_type": "must be a mapping of names to values",
    "model_type": "must be a mapping of keys to values",
    "path_type": "must be a path",
}


def explain(error: ValidationError, tree: Tree, model: type[BaseModel]) -> Iterator[Problem]:
    """One problem for each error. pydantic's own wording never repeats a value: it may be a secret."""
    for detail in error.errors(include_url=False):
        place, key = locate(tree, detail["loc"])
        if detail["type"] == "missing":
            key = (*key, *detail["loc"][-1:]) if key[-1:] != detail["loc"][-1:] else key
        yield Problem(*place, dotted(key), _message(detail, model))


def locate(tree: Tree, key: Key) -> tuple[Place, Key]:
    """Where the value at `key` stands, and its key in the file.

    Parts of the key that are not in the file (pydantic adds the names of union members, and "[key]") are left out.
    """
    place, found = tree.place, []
    for part in key:
        if tree.entries is not None and isinstance(part, str) and part in tree.entries:
            entry = tree.entries[part]
            place, tree = entry.place, entry.tree
        elif tree.items is not None and isinstance(part, int) and part < len(tree.items):
            tree = tree.items[part]
            place = tree.place
        else:
            continue
        found.append(part)
    return place, tuple(found)


def _message(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        return _unknown(detail["loc"], model)
    if kind == "value_error":
        return str(detail["ctx"]["error"])
    if value is None and kind in _WORDS and kind != "missing":
        return f"has no value; it {_WORDS[kind]}"
    if kind == "string_type" and isinstance(value, int | float):
        return "must be a text; put it in quotes"
    return _WORDS.get(kind) or detail["msg"].replace("Input should", "should", 1)


def _unknown(location: Key, model: type[BaseModel]) -> str:
    known = _known_keys(location[:-1], model)
    close = difflib.get_close_matches(str(location[-1]), known, n=1, cutoff=0.6)
    if close:
        return f"this key is not known; did you mean '{close[0]}'?"
    return f"this key is not known; known here: {', '.join(sorted(known))}" if known else "this key is not known"


def _known_keys(location: Key, model: type[BaseModel]) -> list[str]:
    """The keys that a mapping at this location may have, as far as the models tell."""
    types: list[Any] = [model]
    for part in location:
        inner = [_fields(kind)[part] for kind in _models(types) if isinstance(part, str) and part in _fields(kind)]
        # Not a field of a model: an index, a name in a dict, or the name of a union's member. The models stay the same.
        types = inner or types
    return [name for kind in _models(types) for name in _fields(kind)]


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _models(types: list[Any]) -> list[type[BaseModel]]:
    """All models inside these annotations: `dict[str, list[Route]] | None` gives Route."""
    found: list[type[BaseModel]] = []
    for annotation in types:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.append(annotation)
        else:
            found += _models(list(get_args(annotation)))
    return found
