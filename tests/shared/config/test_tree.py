from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config.problems import ConfigError, dotted
from shared.config.tree import MAX_FILE, Text, parse_tree, read_tree

FILE = Path("c.yaml")


def problem_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_tree(text, FILE)
    (problem,) = caught.value.problems
    return str(problem)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("True", "True"), ("true", True), ("false", False),
        ("8:30", "8:30"), ("2024-01-31", "2024-01-31"), ("0644", "0644"), ("0x1f", "0x1f"), ("1_000", "1_000"),
        ("0", 0), ("-5", -5), ("12", 12), ("1.5", 1.5), ("1e3", "1e3"), (".5", ".5"), (".inf", ".inf"), ("nan", "nan"),
        ("~", None), ("null", None), ("", None), ("''", ""), ("'5'", "5"), ("=", "="), ("<<", "<<"),
        ("9" * 30, "9" * 30), ("!!str 5", "5"), ("!!int 5", 5),
    ],
)  # fmt: skip
def test_plain_scalars_are_those_of_yaml_1_2(scalar, value):
    got = parse_tree(f"a: {scalar}", FILE).plain()["a"]
    assert got == value
    assert type(got) is (Text if isinstance(value, str) else type(value))


def test_keys_are_always_texts():
    assert parse_tree("{1: a, no: b, null: c, 2024-01-01: d}", FILE).plain() == {
        "1": "a", "no": "b", "null": "c", "2024-01-01": "d",
    }  # fmt: skip


def test_texts_know_their_file():
    assert parse_tree("a: [b]", FILE).plain()["a"][0].source == FILE


def test_places():
    tree = parse_tree("a:\n  - x\n  - b:\n      c: 1\n", FILE)
    assert tree.entries is not None
    items = tree.entries["a"].tree.items
    assert items is not None
    assert [str(item.place) for item in items] == ["c.yaml:2", "c.yaml:3"]
    assert items[1].entries is not None
    assert items[1].entries["b"].place.line == 3


def test_aliases_stand_for_their_anchor():
    assert parse_tree("a: &x {b: 1}\nc: *x\n", FILE).plain() == {"a": {"b": 1}, "c": {"b": 1}}


class TestRefused:
    def test_a_key_given_twice(self):
        assert problem_of("a:\n  b: 1\n  c: 2\n  b: 3\n") == (
            "c.yaml:4: a.b: this key is given twice; the first is in line 2"
        )

    def test_all_of_them(self):
        with pytest.raises(ConfigError) as caught:
            parse_tree("a: 1\na: 2\nb: !x 1\n", FILE)
        assert [problem.line for problem in caught.value.problems] == [2, 3]

    @pytest.mark.parametrize(
        "value",
        ["!!python/object/apply:os.system [ls]", "!x y", "!!binary aGk=", "!!set {a, b}", "!!int abc", "!!bool si"],
    )
    def test_tags(self, value):
        problem = problem_of(f"a:\n  b: {value}\n")
        assert problem.startswith("c.yaml:2: a.b: the tag ")
        assert problem.endswith("is not known here")

    def test_a_mapping_as_a_key(self):
        assert problem_of("? {a: b}\n: c\n") == "c.yaml:1: a key must be a text"

    @pytest.mark.parametrize(
        "text", ["a: [1\n", "a: 'x\n", "\tb: 1", "a: b: c", "a: *nowhere", "a: 1\n---\nb: 2\n", "%YAML 9.9\n--- a\n"]
    )
    def test_what_is_no_yaml(self, text):
        assert "is not valid YAML" in problem_of(text)

    def test_a_tab_is_named(self):
        assert "holds a tab" in problem_of("a:\n\tb: 1\n")
        assert "tab" not in problem_of("a: [1\n")

    @pytest.mark.parametrize("text", ["- a", "text", "5", "[]"])
    def test_what_is_no_mapping(self, text):
        assert problem_of(text) == "c.yaml:1: must be a mapping of keys to values"

    def test_control_characters(self):
        assert "is not valid YAML" in problem_of("a: \x00")

    def test_an_alias_inside_its_own_anchor(self):
        assert "endless" in problem_of("a: &x [*x]")

    def test_a_bomb_of_aliases(self, monkeypatch):
        monkeypatch.setattr("shared.config.tree.MAX_NODES", 10_000)
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
        assert "far too large" in problem_of("\n".join(lines))

    def test_endless_nesting(self):
        for text in ("a: " + "[" * 1500, "a: " + "[" * 200_000, "- " * 50_000, "{a: " * 50_000):
            assert "nested too deeply" in problem_of(text)

    def test_endless_nesting_by_aliases(self):
        lines = ["a0: &a0 []"]
        lines += [f"a{n}: &a{n} {'[' * 60}*a{n - 1}{']' * 60}" for n in range(1, 50)]
        assert "nested too deeply" in problem_of("\n".join(lines))

    def test_what_nobody_nests_deeper_is_read(self):
        tree = parse_tree("a: " + "[" * 90 + "]" * 90, Path("c.yaml"))
        assert str(tree.plain()["a"]).count("[") == 90


class TestFiles:
    def test_missing(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read: No such file"):
            read_tree(tmp_path / "no.yaml")

    def test_a_folder(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            read_tree(tmp_path)

    def test_not_utf8(self, tmp_path):
        path = tmp_path / "c.yaml"
        path.write_bytes(b"a: 1\nb: \xff\n")
        with pytest.raises(ConfigError, match=r"c\.yaml:2: is not UTF-8 text"):
            read_tree(path)

    def test_a_byte_order_mark_is_nothing(self, tmp_path):
        path = tmp_path / "c.yaml"
        path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: 2\r\n")
        assert read_tree(path).plain() == {"a": 1, "b": 2}

    def test_far_too_large(self, tmp_path):
        path = tmp_path / "c.yaml"
        with path.open("wb") as file:
            file.truncate(MAX_FILE + 1)
        with pytest.raises(ConfigError, match="larger than 16 MiB"):
            read_tree(path)


@given(st.text(st.characters(codec="utf-8"), max_size=60) | st.text("ab:-[]{},&*!?|>'\"#%@ \n\t", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        assert isinstance(parse_tree(text, FILE).plain(), dict)
    except ConfigError as error:
        assert error.problems


def test_keys_as_people_write_them():
    assert dotted(("tenants", "acme", "routes", 0, "match")) == "tenants.acme.routes[0].match"
    assert dotted(("a.b", "c d\n")) == '["a.b"]["c d\\n"]'
