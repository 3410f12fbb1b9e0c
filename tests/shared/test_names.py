"""Names: exactly the shape that the documentation gives, and nothing that merely looks like it."""

from __future__ import annotations

import difflib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from shared.names import Name, check_name, is_name, suggestion

NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@pytest.mark.parametrize("text", ["a", "0", "a-", "s4-prod", "a" * 63])
def test_names(text):
    assert is_name(text)
    assert check_name(text) == text


@pytest.mark.parametrize(
    "text",
    ["", "-a", "A", "a\n", " a", "a ", "a_b", "a.b", "a/b", "ä", "١", "a\x00", "a" * 64, "İ", "\u212a"],  # noqa: RUF100
)
def test_what_only_looks_like_a_name(text):
    assert not is_name(text)
    with pytest.raises(ValueError, match="is not a name"):
        check_name(text)


@given(NAMES)
def test_every_string_of_the_shape_is_a_name(text):
    assert is_name(text)


@given(st.text(max_size=70))
def test_every_name_is_of_the_shape(text):
    alphabet = set(string.ascii_lowercase + string.digits + "-")
    assert is_name(text) == (1 <= len(text) <= 63 and set(text) <= alphabet and not text.startswith("-"))


def test_a_long_wrong_name_is_not_repeated_whole():
    with pytest.raises(ValueError, match="…") as caught:
        check_name("A" * 100_000)
    assert len(str(caught.value)) < 250


def test_in_a_model():
    adapter = TypeAdapter(Name)
    assert adapter.validate_python("focused-run") == "focused-run"
    with pytest.raises(ValidationError, match="is not a name"):
        adapter.validate_python("Focused Run")


def test_what_may_have_been_meant():
    assert suggestion("waldorf", ["walldorf", "paris"]) == "Did you mean walldorf?"
    assert suggestion("x", ["paris", "berlin"]) == "Known here: berlin, paris."
    assert suggestion("x", map(str, range(9))) == "Known here: 0, 1, 2, 3, 4, …."
    assert suggestion("x", []) == ""


def test_among_very_many_names_only_some_are_compared(monkeypatch):
    compared: list[str] = []
    real = difflib.get_close_matches

    def compare(name: str, names: list[str], n: int) -> list[str]:
        compared.extend(names)
        return real(name, names, n)

    monkeypatch.setattr(difflib, "get_close_matches", compare)
    known = [f"acme/walldorf/connector-{number}" for number in range(10_000)]
    assert suggestion("acme/walldorf/conector-17", known) != ""
    assert suggestion("acme/walldorf/connector-123x", known) == "Did you mean acme/walldorf/connector-123?"
    assert len(compared) <= 1000
    assert suggestion("qcme/walldorf/c1", [f"acme/walldorf/c{number}" for number in range(250)]).startswith("Did")
