"""Files to model: read, include, merge, validate, and put every problem at its file and line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError

from shared.config.edition import Edition
from shared.config.explain import explain, locate
from shared.config.model import ConfigModel, LoadContext
from shared.config.problems import ConfigError, Key, Problem, dotted
from shared.config.tree import Entry, Tree, decode_tree

Model = TypeVar("Model", bound=ConfigModel)

INCLUDE: Final = "include"
_INCLUDE_SCHEMA: Final = {
    "type": "array",
    "items": {"type": "string"},
    "description": "Files whose keys are merged into this one; wildcards are allowed; relative to this file.",
}


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Model]):
    """A config and its files: the YAML `sources`, the `folders` of wildcards, the `files` that values name."""

    config: Model
    sources: tuple[Path, ...]
    folders: tuple[Path, ...]
    files: tuple[Path, ...]
    credentials: Path | None = None
    """Where `$CREDENTIALS_DIRECTORY` led."""
    edition: Edition = field(default_factory=Edition, repr=False, compare=False)
    """What the `sources` held."""

    def watched(self) -> list[Path]:
        """All paths whose change may mean another config, or other certificates."""
        return list(dict.fromkeys((*self.sources, *self.folders, *self.files)))


def load_config(path: Path, model: type[Model]) -> Model:
    """The validated config at `path`. ConfigError lists all that is wrong."""
    return read_config(path, model).config


def read_config(
    path: Path, model: type[Model], credentials: Path | None = None, edition: Edition | None = None
) -> Loaded[Model]:
    """As `load_config`, together with the files that it came from, for whoever watches them.

    `credentials` is what `$CREDENTIALS_DIRECTORY` stands for in the config's paths. An `edition` that another process
    has read takes the place of the YAML files.
    """
    edition = edition or Edition()
    sources, folders, context = [Path(path).absolute()], list[Path](), LoadContext(credentials)
    try:
        config = _validated(_read_all(sources, folders, edition), model, context)
    except ConfigError as error:
        error.looked_at = tuple(dict.fromkeys((*sources, *folders, *context.files)))
        raise
    return Loaded(config, tuple(sources), tuple(folders), tuple(dict.fromkeys(context.files)), credentials, edition)


def _validated(tree: Tree, model: type[Model], context: LoadContext) -> Model:
    try:
        config = model.model_validate(tree.plain(), context=context)
    except ValidationError as error:
        raise ConfigError(_in_order(explain(error, tree, model))) from error
    problems = []
    for flaw in config.flaws():
        place, key = locate(tree, flaw.key)
        problems.append(Problem(*place, dotted(key), flaw.message))
    if problems:
        raise ConfigError(_in_order(problems))
    return config


def json_schema(model: type[ConfigModel]) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a config file, for editors; knows `include` too."""
    schema = model.model_json_schema()
    schema.setdefault("properties", {})[INCLUDE] = _INCLUDE_SCHEMA
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _in_order(problems: Iterable[Problem]) -> list[Problem]:
    return sorted(dict.fromkeys(problems), key=lambda problem: (str(problem.path), problem.line or 0))


def _read_all(sources: list[Path], folders: list[Path], edition: Edition) -> Tree:
    """The merged tree. `sources` holds the main file; what is included is added there, where wildcards look to
    `folders`."""
    path, problems = sources[0], []
    tree = decode_tree(edition.read(path), path)
    for included, entry in _included(tree, path, folders, edition):
        if included in sources:
            problems.append(Problem(*entry.place, INCLUDE, f"{included} is included twice"))
            continue
        sources.append(included)
        try:
            part = decode_tree(edition.read(included), included)
        except ConfigError as error:
            problems += error.problems
            continue
        if part.entries and INCLUDE in part.entries:
            place = part.entries[INCLUDE].place
            problems.append(Problem(*place, INCLUDE, "an included file cannot include others"))
            continue
        problems += _merge(tree, part, ())
    if problems:
        raise ConfigError(problems)
    return tree


def _included(tree: Tree, path: Path, folders: list[Path], edition: Edition) -> Iterator[tuple[Path, Tree]]:
    """The files that `include` names, in order; takes the key out of the tree, and notes where wildcards look."""
    entry = (tree.entries or {}).pop(INCLUDE, None)
    if entry is None:
        return
    if entry.tree.items is None or not all(isinstance(item.value, str) for item in entry.tree.items):
        raise ConfigError([Problem(*entry.place, INCLUDE, "must be a list of file names, as [conf.d/*.yaml]")])
    for item in entry.tree.items:
        pattern = str(item.value)
        found = edition.matches(path.parent, pattern)
        if any(sign in pattern for sign in "*?["):
            folders.append((path.parent / pattern).parent)
        elif not found:
            folders.append(path.parent / pattern)  # it may come
            raise ConfigError([Problem(*item.place, INCLUDE, f"{path.parent / pattern} does not exist")])
        for match in found:
            yield match, item


def _merge(base: Tree, part: Tree, key: Key) -> Iterator[Problem]:
    """Put `part` into `base`: mappings deeply, everything else only where nothing stands yet."""
    if base.entries is None or part.entries is None:
        return
    for name, entry in part.entries.items():
        there: Entry | None = base.entries.get(name)
        if there is None:
            base.entries[name] = entry
        elif there.tree.entries is not None and entry.tree.entries is not None:
            yield from _merge(there.tree, entry.tree, (*key, name))
        else:
            message = f"is set here and at {there.place}; set it in one place only"
            yield Problem(*entry.place, dotted((*key, name)), message)
