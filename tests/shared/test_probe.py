"""A probe's question and answer in the tunnel: one literal both ways, and sides that are hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import FAULTS, LocalFault
from shared.http.push_head import HeadError, decode_varying
from shared.probe import NONE, Verdict, decode_answer, decode_question, encode_answer, encode_question

QUESTION = b"probe\0focused-run\0\0"
ANSWER = b"probe\0target-unreachable\0001500\00020\0000\0\0"


def test_literals_both_ways():
    assert encode_question("focused-run") == QUESTION
    assert decode_question(QUESTION) == "focused-run"
    verdict = Verdict("target-unreachable", 1.5, 0.02)
    assert encode_answer(verdict) == ANSWER
    assert decode_answer(ANSWER) == verdict
    assert encode_answer(Verdict("", status=204)) == b"probe\0ok\0000\0000\000204\0\0"
    assert decode_answer(b"probe\0none\0000\0000\0000\0\0") == Verdict(NONE)


@given(st.sampled_from(["", NONE, *FAULTS]), st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1), st.integers(0, 999))
def test_there_and_back(code, age, took, status):
    verdict = Verdict(code, age / 1e3, took / 1e3, status)
    assert decode_answer(encode_answer(verdict)) == verdict


def test_times_that_do_not_fit_are_cut():
    assert decode_answer(encode_answer(Verdict("", -1.0, 1e12))) == Verdict("", 0.0, 999_999.999)


def test_an_older_connector_refuses_it_as_a_push():
    with pytest.raises(HeadError):
        decode_varying(QUESTION)


def test_what_a_newer_side_says_beyond():
    assert decode_question(QUESTION[:-1] + b"later=on\0\0") == "focused-run"
    assert decode_answer(ANSWER[:-1] + b"later=on\0\0").code == "target-unreachable"
    assert decode_answer(ANSWER.replace(b"target-unreachable", b"target-on-fire")).code == "connector-error"


@pytest.mark.parametrize(
    "data", [b"", b"probe\0", QUESTION[:-1], QUESTION + b"\0", QUESTION.replace(b"f", b"F"), b"probe\0a/b\0\0",
             b"probe\0a\0b\0\0"],
)  # fmt: skip
def test_questions_that_are_none(data):
    with pytest.raises(LocalFault) as caught:
        decode_question(data)
    assert caught.value.fault.code == "bad-push"


@pytest.mark.parametrize(
    "data", [b"", ANSWER[:-1], ANSWER + b"x", ANSWER.replace(b"1500", b"-1"), ANSWER.replace(b"1500", b"1" * 10),
             ANSWER.replace(b"1500", "١".encode()), ANSWER.replace(b"target", b"10.0.0.1")],
)  # fmt: skip
def test_answers_that_are_none(data):
    with pytest.raises(LocalFault) as caught:
        decode_answer(data)
    assert caught.value.fault.code == "connector-error"


@given(st.binary(max_size=200))
def test_nothing_raises_anything_else(data):
    for head in (data, b"probe\0" + data, QUESTION[:-1] + data, ANSWER[:-1] + data):
        for decode in (decode_question, decode_answer):
            try:
                decode(head)
            except LocalFault:
                pass
