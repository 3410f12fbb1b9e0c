"""A push that the relay answers by itself: a request for a token. Its route leads nowhere."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cloud_relay.ingress.push_answer import PushAnswer
from cloud_relay.ingress.push_end import PushState
from cloud_relay.oauth.endpoint import LocalAnswer
from shared.errors import FAULTS, Fault
from shared.http.problem import http_date
from shared.http.responses import serialize_response_head

if TYPE_CHECKING:
    from cloud_relay.oauth.endpoint import TokenEndpoint
    from cloud_relay.routing import Route

_JUDGING = PushState.JUDGING
_CANNOT_JUDGE = FAULTS["cannot-judge-credential"]
_TOO_LARGE = FAULTS["body-too-large"]


class PushLocal(PushAnswer):
    """What a push does instead of opening a stream, where its route has an endpoint."""

    __slots__ = ()

    def _serve(self, route: Route, endpoint: TokenEndpoint) -> None:
        """Answer as soon as the body is whole. It is bounded by the route, and counted while it waits."""
        self._state = _JUDGING
        self.due = self.began + route.timeout
        if self.bytes_in > route.max_body or (self.head.content_length or 0) > route.max_body:
            self._fail(_TOO_LARGE)
        elif self._has_whole_body:
            self._respond(endpoint)
        else:
            self._hold_bytes(self.bytes_in)
            if self._state is _JUDGING:
                self._connection.body_is_wanted()

    def _respond(self, endpoint: TokenEndpoint) -> None:
        """The body is whole: ask the endpoint."""
        body = b"".join(self._pieces or ())
        outcome = endpoint.respond(self.head, body, self._connection.source)
        if isinstance(outcome, asyncio.Future):
            self._future = outcome
            outcome.add_done_callback(self._on_outcome)
        else:
            self._answer_locally(outcome)

    def _on_outcome(self, future: asyncio.Future[LocalAnswer | Fault]) -> None:
        self._future = None
        if self._state is not _JUDGING:
            return
        try:
            is_broken = future.cancelled() or future.exception() is not None
            self._answer_locally(_CANNOT_JUDGE if is_broken else future.result())
        except Exception as error:  # noqa: BLE001 - reported; a bug in one push must harm no other
            self._on_bug(error)

    def _answer_locally(self, answer: LocalAnswer | Fault) -> None:
        if isinstance(answer, Fault):
            self._fail(answer)
            return
        keep = self._may_keep()
        self.sender = answer.sender
        self.status = answer.status
        body = b"" if self.head.method == b"HEAD" else answer.body
        headers = [*answer.headers, (b"X-Request-Id", self.request_id.encode()), (b"Date", http_date(time.time()))]
        head = serialize_response_head(
            answer.status, headers, content_length=len(answer.body), connection=None if keep else b"close"
        )
        self.bytes_out = len(body)
        connection = self._connection
        connection.transport.write(head + body)
        self._settle()
        connection.push_finished(keep=keep)
