"""The token endpoint (RFC 6749 §4.4, §5): client credentials in, a bearer token out. Knows no connection.

503 problem document    we cannot judge now: the sender tries again
401 invalid_client      never valid, or switched off
400 …                   what was sent is no proper request
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

import orjson

from cloud_relay.credentials import Passwords
from cloud_relay.oauth.form import TokenError, TokenForm, read_form
from cloud_relay.oauth.tokens import AccessTokens, Client
from cloud_relay.senders import Sender
from shared.errors import Fault
from shared.http.requests import RequestHead

SCOPE: Final = "push"
"""What a token is for, told to whoever asked for any other scope (RFC 6749 §3.3): scopes are not distinguished here."""

_CHALLENGE: Final = (b"WWW-Authenticate", b'Basic realm="qanat", charset="UTF-8"')
_HEADERS: Final = (
    (b"Content-Type", b"application/json"),
    (b"Cache-Control", b"no-store"),
    (b"Pragma", b"no-cache"),
)


class LocalAnswer(NamedTuple):
    """An answer that the relay gives by itself. `sender` is who got it, None for nobody; `error` what was wrong."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    sender: Sender | None
    error: str = ""


class TokenEndpoint:
    """One tenant's endpoint at one host and path. `lifetime` of its tokens is in seconds."""

    __slots__ = ("_clients", "_lifetime", "_tokens", "tenant")

    def __init__(self, tenant: str, clients: Passwords[Client], tokens: AccessTokens, lifetime: float) -> None:
        self.tenant = tenant
        self._clients = clients
        self._tokens = tokens
        self._lifetime = lifetime

    def respond(
        self, head: RequestHead, body: bytes, source: str
    ) -> LocalAnswer | Fault | asyncio.Future[LocalAnswer | Fault]:
        """Answer a whole request. A Fault is for 503; a future only while a slow hash runs."""
        try:
            form = read_form(head.method, head.fields, body)
        except TokenError as error:
            return _refusal(error)
        return self._judge(form, form.secrets, source)

    def _judge(
        self, form: TokenForm, secrets: tuple[bytes, ...], source: str
    ) -> LocalAnswer | Fault | asyncio.Future[LocalAnswer | Fault]:
        """Try the first of the secrets, and the others after it."""
        outcome = self._clients.judge(form.client_id, secrets[0], source)
        if not isinstance(outcome, asyncio.Future):
            return self._next(outcome, form, secrets[1:], source)
        answer: asyncio.Future[LocalAnswer | Fault] = asyncio.get_running_loop().create_future()

        def judged(done: asyncio.Future[Client | Fault]) -> None:
            found = self._next(done.result(), form, secrets[1:], source)
            if isinstance(found, asyncio.Future):
                found.add_done_callback(lambda last: tell(last.result()))
            else:
                tell(found)

        def tell(found: LocalAnswer | Fault) -> None:
            if not answer.done():
                answer.set_result(found)

        outcome.add_done_callback(judged)
        return answer

    def _next(
        self, outcome: Client | Fault, form: TokenForm, others: tuple[bytes, ...], source: str
    ) -> LocalAnswer | Fault | asyncio.Future[LocalAnswer | Fault]:
        if isinstance(outcome, Client):
            return self._grant(outcome, form)
        if outcome.status != 401:
            return outcome
        if others:
            return self._judge(form, others, source)
        return _refusal(TokenError("invalid_client", "The client is unknown, or its secret is wrong."))

    def _grant(self, client: Client, form: TokenForm) -> LocalAnswer:
        if client.sender.is_disabled:
            return _refusal(TokenError("invalid_client", "The client is switched off."), client.sender)
        answer = {
            "access_token": self._tokens.issue(client, self._lifetime),
            "token_type": "Bearer",
            "expires_in": int(self._lifetime),
        }
        if form.has_scope:
            answer["scope"] = SCOPE
        return LocalAnswer(200, _HEADERS, orjson.dumps(answer), client.sender)


def _refusal(error: TokenError, sender: Sender | None = None) -> LocalAnswer:
    body = orjson.dumps({"error": error.code, "error_description": error.description})
    if error.code == "invalid_client":
        return LocalAnswer(401, (*_HEADERS, _CHALLENGE), body, sender, error.code)
    return LocalAnswer(400, _HEADERS, body, sender, error.code)
