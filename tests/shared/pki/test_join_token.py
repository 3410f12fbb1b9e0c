"""Join tokens as text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config import HostPort
from shared.pki.join_token import PREFIX, JoinToken, parse_join_token

TOKEN = JoinToken(
    "qanat.test", (HostPort("relay.example.com", 443), HostPort("::1", 8443)), "ab" * 32, "acme", "walldorf", "c1",
    "7f3k2m9a", "cd" * 32,
)  # fmt: skip


def test_both_ways():
    assert parse_join_token(str(TOKEN)) == TOKEN
    assert parse_join_token(f"  {TOKEN}\n") == TOKEN
    assert str(TOKEN.identity) == "spiffe://qanat.test/tenant/acme/location/walldorf/connector/c1"


def test_nothing_but_its_text_shows_the_secret():
    assert TOKEN.secret not in repr(TOKEN)
    assert TOKEN.secret not in f"{[TOKEN]!r}"


@given(st.integers(0, len(str(TOKEN)) - 1), st.sampled_from("abcXYZ019-_."))
def test_a_slip_of_the_hand_is_found(position, character):
    text = str(TOKEN)
    changed = text[:position] + character + text[position + 1 :]
    if changed != text:
        with pytest.raises(ValueError, match="join token"):
            parse_join_token(changed)


@given(st.integers(0, len(str(TOKEN)) - 1))
def test_a_part_of_it_is_none(length):
    with pytest.raises(ValueError, match="join token") as caught:
        parse_join_token(str(TOKEN)[:length])
    assert TOKEN.secret not in str(caught.value)


@given(st.text(max_size=200))
def test_anything_else(text):
    with pytest.raises(ValueError, match="join token"):
        parse_join_token(text)
    with pytest.raises(ValueError, match="join token"):
        parse_join_token(PREFIX + text)


@pytest.mark.parametrize(
    "change",
    [
        {"relays": ()}, {"pin": "ab"}, {"tenant": "Acme"}, {"secret": "x"}, {"token": "../x"},
        {"relays": (HostPort("a b", 1),)}, {"relays": (HostPort("a", 0),)}, {"trust_domain": "Q/x"},
    ],
)  # fmt: skip
def test_no_token_that_a_relay_would_not_write(change):
    with pytest.raises(ValueError, match="no relay writes"):
        parse_join_token(str(TOKEN._replace(**change)))
