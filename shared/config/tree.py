"""YAML read into trees that remember at which file and line each key and each value stands.

Plain scalars are read as YAML 1.2 has them, by PyYAML's safe loader: `no` and `on` are texts, not booleans; `8:30` is a
text, not 510; `0644` and dates are texts. Only `true` and `false` are booleans. Tags are refused, and keys given twice.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from shared.config.problems import ConfigError, Key, Problem, dotted

MAX_FILE: Final = 16 << 20
"""Bytes of the largest config file; nobody writes one by hand that is larger, and a wrong path may lead anywhere."""

MAX_NODES: Final = 500_000
"""Values in one file, aliases counted each time: a few lines of nested aliases would otherwise fill the memory."""


class Place(NamedTuple):
    """A line of a file; lines count from 1."""

    path: Path
    line: int

    def __str__(self) -> str:
        return f"{self.path}:{self.line}"


class Text(str):
    """A text of a config that knows its file, so that a relative path in it can be resolved."""

    __slots__ = ("source",)

    source: Path


@dataclass(slots=True, frozen=True)
class Entry:
    """One key of a mapping: where the key stands, and its value."""

    place: Place
    tree: Tree


@dataclass(slots=True)
class Tree:
    """One value and its place: exactly one of `entries` (a mapping), `items` (a list) and `value` (a scalar) counts."""

    place: Place
    entries: dict[str, Entry] | None = None
    items: list[Tree] | None = None
    value: str | int | float | bool | None = None

    def plain(self) -> Any:
        """As the YAML safe loader would give it: dicts, lists and scalars (texts as `Text`)."""
        if self.entries is not None:
            return {key: entry.tree.plain() for key, entry in self.entries.items()}
        if self.items is not None:
            return [item.plain() for item in self.items]
        return self.value


_Composer: Final[type[yaml.SafeLoader]] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's where PyYAML was built with it: a config of 2,000 routes takes 0.4 s instead of 2."""


class _Loader(_Composer):  # type: ignore[misc, valid-type]  # which of the two it is shows only when it runs
    """The safe loader with the plain scalars of YAML 1.2; only its composer is used, nothing is ever constructed."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 — PyYAML's own shape


def _implicit(tag: str, pattern: str, first: str) -> None:
    _Loader.add_implicit_resolver(tag, re.compile(rf"(?:{pattern})\Z", re.ASCII), list(first))


MAX_DEPTH: Final = 100
"""Mappings and lists inside each other. libyaml's composer calls itself for each, and has no end of its own."""

_TAG: Final = "tag:yaml.org,2002:"
_NULL, _BOOL, _INT, _FLOAT = _TAG + "null", _TAG + "bool", _TAG + "int", _TAG + "float"
_STR, _MAP, _SEQ = _TAG + "str", _TAG + "map", _TAG + "seq"
_implicit(_NULL, r"~|null", "~n")
_Loader.add_implicit_resolver(_NULL, re.compile(r"\Z"), [""])  # an empty value
_implicit(_BOOL, r"true|false", "tf")
_implicit(_INT, r"-?(?:0|[1-9][0-9]{0,17})", "-0123456789")
_implicit(_FLOAT, r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,17}(?:[eE][-+]?[0-9]{1,2})?", "-0123456789")


def read_file(path: Path) -> bytes:
    """What a config file holds. ConfigError if it cannot be read, or is none by its size."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError([Problem(path, None, "", f"cannot be read: {error.strerror or error}")]) from error
    if len(raw) > MAX_FILE:
        raise ConfigError([Problem(path, None, "", f"is larger than {MAX_FILE >> 20} MiB; this is not a config")])
    return raw


def read_tree(path: Path) -> Tree:
    """The tree of one file; an empty file is an empty mapping. ConfigError names every problem that is found."""
    return decode_tree(read_file(path), path)


def decode_tree(raw: bytes, path: Path) -> Tree:
    """As `read_tree` of a file that holds this."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(path, line, "", "is not UTF-8 text")]) from error
    return parse_tree(text, path)


def parse_tree(text: str, path: Path) -> Tree:
    """The tree of a YAML text; `path` is only remembered. ConfigError as `read_tree`."""
    try:
        if _is_too_deep(text):
            raise ConfigError([Problem(path, None, "", "is nested too deeply")])
        node = yaml.compose(text, _Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"is not valid YAML: {error.problem or error.context}"
        if mark is not None and "\t" in "".join(text.splitlines()[mark.line : mark.line + 1]):
            message += "; this line holds a tab, YAML is indented by spaces"
        raise ConfigError([Problem(path, mark.line + 1 if mark else None, "", message)]) from error
    except yaml.YAMLError as error:
        raise ConfigError([Problem(path, None, "", f"is not valid YAML: {str(error).splitlines()[0]}")]) from error
    if node is None or (isinstance(node, yaml.ScalarNode) and node.tag == _NULL):
        return Tree(Place(path, 1), entries={})
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError([Problem(path, node.start_mark.line + 1, "", "must be a mapping of keys to values")])
    reader = _Reader(path)
    tree = reader.read(node, ())
    if reader.problems:
        raise ConfigError(reader.problems)
    return tree


def _is_too_deep(text: str) -> bool:
    depth = 0
    for event in yaml.parse(text, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return False


class _Reader:
    """Turns PyYAML's nodes into trees, and collects problems on the way instead of ending at the first."""

    def __init__(self, path: Path) -> None:
        self.problems: list[Problem] = []
        self._path = path
        self._nodes = 0
        self._open: set[int] = set()

    def read(self, node: yaml.Node, key: Key) -> Tree:
        place = Place(self._path, node.start_mark.line + 1)
        self._nodes += 1
        if self._nodes > MAX_NODES or id(node) in self._open:
            # An alias inside its own anchor, or a bomb of aliases: nothing after it makes sense.
            raise ConfigError([Problem(*place, dotted(key), "aliases make this config endless or far too large")])
        if len(self._open) >= MAX_DEPTH:  # aliases inside each other; the text itself was looked at before
            raise ConfigError([Problem(*place, "", "is nested too deeply")])
        if isinstance(node, yaml.ScalarNode):
            return Tree(place, value=self._scalar(node, key))
        self._open.add(id(node))
        if isinstance(node, yaml.MappingNode) and node.tag == _MAP:
            tree = Tree(place, entries=dict(self._entries(node, key)))
        elif isinstance(node, yaml.SequenceNode) and node.tag == _SEQ:
            tree = Tree(place, items=[self.read(item, (*key, index)) for index, item in enumerate(node.value)])
        else:
            self._refuse_tag(node, key)
            tree = Tree(place)
        self._open.discard(id(node))
        return tree

    def _entries(self, node: yaml.MappingNode, key: Key) -> Iterator[tuple[str, Entry]]:
        lines: dict[str, int] = {}
        for name_node, value_node in node.value:
            line = name_node.start_mark.line + 1
            if not isinstance(name_node, yaml.ScalarNode):
                self.problems.append(Problem(self._path, line, dotted(key), "a key must be a text"))
                continue
            name = str(name_node.value)
            if name in lines:
                message = f"this key is given twice; the first is in line {lines[name]}"
                self.problems.append(Problem(self._path, line, dotted((*key, name)), message))
                continue
            lines[name] = line
            yield name, Entry(Place(self._path, line), self.read(value_node, (*key, name)))

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> str | int | float | bool | None:
        text = str(node.value)
        if node.tag == _STR:
            located = Text(text)
            located.source = self._path
            return located
        if node.tag == _NULL:
            return None
        try:
            if node.tag == _BOOL:
                return {"true": True, "false": False}[text]
            if node.tag == _INT:
                return int(text)
            if node.tag == _FLOAT:
                return float(text)
        except (KeyError, ValueError):  # an explicit tag on a text that it does not fit: !!int abc
            pass
        self._refuse_tag(node, key)
        return None

    def _refuse_tag(self, node: yaml.Node, key: Key) -> None:
        shown = node.tag[:60].encode("unicode_escape").decode("ascii")
        line = node.start_mark.line + 1
        self.problems.append(Problem(self._path, line, dotted(key), f"the tag {shown} is not known here"))
