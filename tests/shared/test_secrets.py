from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from shared import secrets
from shared.secrets import SecretHash, hash_password, hash_secret, new_secret, parse_stored, verify

CHEAP = "scrypt:4096:8:1:c2FsdHNhbHRzYWx0c2FsdA:"


def test_new_secrets_are_url_safe_and_differ():
    made = {new_secret() for _ in range(200)}
    assert len(made) == 200
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{43}", secret) for secret in made)


def test_a_generated_secret_is_known_by_its_hash():
    secret = new_secret()
    stored = hash_secret(secret)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", stored)
    assert verify(stored, secret)
    assert verify(stored, secret.encode())
    assert not verify(stored, secret + "x")
    assert not verify(stored, "")
    assert not parse_stored(stored).is_slow


def test_a_password_is_known_by_its_hash(monkeypatch):
    monkeypatch.setattr(secrets, "_N", 4096)
    stored = hash_password("pässword")
    assert re.fullmatch(r"scrypt:4096:8:1:[A-Za-z0-9_-]{22}:[A-Za-z0-9_-]{43}", stored)
    assert verify(stored, "pässword")
    assert not verify(stored, "password")
    assert hash_password("pässword") != stored
    assert parse_stored(stored).is_slow


def test_the_default_cost_is_accepted_when_it_is_read_back():
    assert verify(hash_password("x"), "x")


@pytest.mark.parametrize("password", ["", "x" * 1025])
def test_passwords_have_bounds(password):
    with pytest.raises(ValueError, match="1 to 1024 bytes"):
        hash_password(password)


def test_an_endless_secret_is_not_even_hashed():
    assert not verify(hash_secret("x"), "x" * 1025)


def test_a_surrogate_is_just_wrong():
    assert not verify(hash_secret("x"), "\ud800")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hunter2", "perhaps the secret itself"),
        ("", "no hash"),
        (None, "no hash"),
        (5, "no hash"),
        ("sha256:", "damaged"),
        ("sha256:" + "A" * 64, "damaged"),
        ("sha256:" + "a" * 64 + "\n", "damaged"),
        ("scrypt:hunter2", "damaged"),
        ("scrypt:4096:8:1:short:" + "a" * 43, "damaged"),
        ("scrypt:1024:8:1:" + "a" * 22 + ":" + "a" * 43, "N must be"),
        ("scrypt:5000:8:1:" + "a" * 22 + ":" + "a" * 43, "N must be"),
        ("scrypt:1048576:8:1:" + "a" * 22 + ":" + "a" * 43, "N must be"),
        ("scrypt:32768:8:99:" + "a" * 22 + ":" + "a" * 43, "N must be"),
        ("scrypt:4096:8:1:" + "a" * 17 + ":" + "a" * 43, "not base64url"),
        ("$2b$12$abc", "perhaps the secret itself"),
    ],
)
def test_what_is_no_hash_is_refused_and_not_repeated(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        parse_stored(text)
    assert "hunter2" not in str(caught.value)


def test_a_stored_secret_shows_nothing_of_itself():
    stored = parse_stored(hash_secret("x"))
    assert str(stored) == "sha256:***"
    assert repr(stored) == "StoredSecret(kind='sha256', cost=(0, 0, 0))"


def test_as_a_field_of_a_model():
    class Basic(BaseModel):
        password_hash: SecretHash

    assert Basic.model_validate({"password_hash": hash_secret("x")}).password_hash.verify("x")
    with pytest.raises(ValidationError):
        Basic.model_validate({"password_hash": "x"})
    assert Basic.model_json_schema()["properties"]["password_hash"]["type"] == "string"


@given(st.text(max_size=200) | st.from_regex(r"\A(sha256|scrypt):[0-9a-zA-Z_:-]{0,120}\Z"))
def test_any_text_is_a_hash_or_a_value_error(text):
    try:
        parse_stored(text)
    except ValueError as error:
        assert "cloud-relay secrets hash" in str(error) or "scrypt's N" in str(error)
