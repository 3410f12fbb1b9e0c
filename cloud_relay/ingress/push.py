"""The way in of a push: route, authenticate, admit, choose, open, perhaps try again. The states are in push_end.py."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from cloud_relay.health import RelayState
from cloud_relay.ingress.push_end import PushState
from cloud_relay.ingress.push_tries import PushTries
from cloud_relay.ingress.retry import fault_of
from cloud_relay.senders import Sender
from shared.errors import FAULTS, Fault, LocalFault
from shared.http.headers import prepare_request_headers
from shared.http.push_head import encode_template, encode_varying

if TYPE_CHECKING:
    from cloud_relay.ingress.context import TunnelSession
    from cloud_relay.routing import Route

_JUDGING, _HOLDING, _OPEN, _ANSWERING = PushState.JUDGING, PushState.HOLDING, PushState.OPEN, PushState.ANSWERING
_DONE: Final = PushState.DONE
_QUEUED: Final = PushState.QUEUED

_SERVING: Final = RelayState.SERVING
_DRAINING: Final = RelayState.DRAINING
_BLIND: Final = RelayState.BLIND
_STARTING: Final = FAULTS["starting"]
_UNKNOWN_HOST: Final = FAULTS["unknown-host"]
_NO_ROUTE: Final = FAULTS["no-such-route"]
_CANNOT_JUDGE: Final = FAULTS["cannot-judge-credential"]
_TOO_LARGE: Final = FAULTS["body-too-large"]
_NO_CONNECTOR: Final = FAULTS["no-connector"]
_DEADLINE: Final = FAULTS["deadline-exceeded"]
_OUT_OF_CREDIT: Final = FAULTS["out-of-credit"]
_SENDER_SLOW: Final = FAULTS["sender-too-slow"]
_TARGET_SLOW: Final = FAULTS["target-too-slow"]

_WITH_BODY: Final = frozenset({b"POST", b"PUT", b"PATCH"})
"""RFC 9110 §8.6: methods whose requests say Content-Length: 0 when there is no body. With others it may be refused."""


class Push(PushTries):
    """One push: what its connection drives, and a `StreamHandler` towards the tunnel."""

    __slots__ = ()

    # ---------------------------------------------------------------- what the connection calls

    def start(self, body: bytes, whole: bool) -> None:
        """Route, authenticate, admit, choose, as far as that goes without waiting. `body` is what there is of it."""
        self.bytes_in = len(body)
        self._pieces = [body]
        self._has_whole_body = whole
        head = self.head
        state = self._ingress.state
        if state is not _SERVING and state is not _DRAINING:
            self._fail(_CANNOT_JUDGE if state is _BLIND else _STARTING)
            return
        routing = self._context.routing
        route = routing.lookup(head.host, head.path)
        if route is None:
            self._fail(_NO_ROUTE if routing.has_host(head.host) else _UNKNOWN_HOST)
            return
        self.route = route
        route.metrics.in_flight += 1
        if route.endpoint is not None:
            self._serve(route, route.endpoint)
            return
        verdict = self._context.authenticator.authenticate(route, head, self._connection)
        if type(verdict) is Sender:
            self._admit(route, verdict, self.began)
        elif isinstance(verdict, Fault):
            self._fail(verdict)
        else:
            self._wait_for_verdict(route, cast("asyncio.Future[Sender | Fault]", verdict))

    def on_body(self, data: bytes, whole: bool) -> None:
        """More of the body; with `whole` the last of it."""
        self.bytes_in += len(data)
        route = self.route
        if route is not None:
            if self.bytes_in > route.max_body:
                self._fail(_TOO_LARGE)
                return
            if self._is_admitted and self.sender is not None:
                self._context.limits.took(self.sender, route, len(data), self._ingress.time())
        self._has_whole_body = whole
        stream, pieces = self._stream, self._pieces
        if stream is None:
            if pieces is not None:
                pieces.append(data)
                self._hold_bytes(len(data))
            if whole and self._state is _JUDGING and route is not None and route.endpoint is not None:
                self._respond(route.endpoint)
            return
        if pieces is not None:
            pieces.append(data)
            self._keep_pieces()
        stream.send(data, whole)
        self._progress = self._ingress.time()
        if not whole and not stream.is_writable:
            self._connection.pause_reading()

    def refuse_body(self, fault: Fault) -> None:
        """The body's framing is broken: there is nothing more to come of it."""
        self._fail(fault)

    def on_due(self, now: float) -> None:
        """The time in `due` has come: a time-out, or a later `due`."""
        state, route = self._state, self.route
        if route is None:
            self.due = 0.0
        elif state is _OPEN:
            self._check_deadline(route, now)
        elif state is _JUDGING:
            self._fail(_CANNOT_JUDGE)
        elif state is _QUEUED:
            self.queued = now - self._held_since
            self._fail(self._over_quota(route))
        elif state is _HOLDING:
            self._ask_again(route, now)
        else:
            self.due = self._progress + self._context.settings.idle_timeout
            if now >= self.due:
                self._fail(_SENDER_SLOW if self._connection.is_write_blocked else _TARGET_SLOW)

    # ---------------------------------------------------------------- what the stream calls

    def on_reset(self, wire_code: int, refused: bool) -> None:
        """See StreamHandler."""
        stream, self._stream = self._stream, None
        if stream is None:
            return
        try:
            fault = fault_of(wire_code, refused)
            if self._state is _OPEN:
                self._try_again(fault, is_safe=refused or not stream.was_sent)
            elif self._state is _ANSWERING or fault is _OUT_OF_CREDIT:
                self._fail(fault)
        except Exception as error:  # noqa: BLE001 - as above
            self._on_bug(error)

    def on_writable(self) -> None:
        """See StreamHandler."""
        self._connection.resume_reading()

    # ---------------------------------------------------------------- on the way in

    def _wait_for_verdict(self, route: Route, future: asyncio.Future[Sender | Fault]) -> None:
        self._state = _JUDGING
        self.due = self.began + route.timeout
        self._future = future
        self._hold_bytes(self.bytes_in)
        future.add_done_callback(self._on_verdict)

    def _on_verdict(self, future: asyncio.Future[Sender | Fault]) -> None:
        self._future = None
        route = self.route
        if self._state is not _JUDGING or route is None:
            return
        try:
            verdict = _CANNOT_JUDGE if future.cancelled() or future.exception() is not None else future.result()
            if isinstance(verdict, Fault):
                self._fail(verdict)
            else:
                self._admit(route, verdict, self._ingress.time())
                self._go_on()
        except Exception as error:  # noqa: BLE001 - as above
            self._on_bug(error)

    def _admit(self, route: Route, sender: Sender, now: float) -> None:
        self.sender = sender
        context = self._context
        fault = context.limits.admit(sender, route, self.head.content_length, now)
        if fault is None:
            self._is_admitted = True
            self._admitted(route, sender, now)
        elif fault is not route.quota_fault:
            self._fail(fault)
        elif not self._wait_for_turn(route, sender, now):
            self._fail(self._over_quota(route))

    def _admitted(self, route: Route, sender: Sender, now: float) -> None:
        context = self._context
        self._ingress.retries.earn()
        if sender.gate.byte_cost or route.gate.byte_cost or route.shared is not None:
            context.limits.took(sender, route, self.bytes_in, now)
        if self.bytes_in > route.max_body:  # a chunked one, whole in the first bytes
            self._fail(_TOO_LARGE)
            return
        session = context.registry.choose(route.tenant, route.location, route.target)
        if session is None:
            self._hold(route, now)
        else:
            self._open(route, session, now)

    def _hold(self, route: Route, now: float) -> None:
        """There is no connector: wait for one, for a moment."""
        until = self.began + min(route.hold, route.timeout)
        if now >= until:
            self._fail(self.fault or _NO_CONNECTOR)
            return
        self._state = _HOLDING
        self._held_since = now
        self.due = until
        if not self._held_bytes:
            self._hold_bytes(sum(map(len, self._pieces or ())))
        if self._state is _HOLDING:
            self._waiter = self._context.registry.wait(route.key, self._on_session)

    def _on_session(self) -> None:
        """A connector for this push showed up, or is usable again."""
        self._waiter = None
        route = self.route
        if self._state is not _HOLDING or route is None:
            return
        try:
            self._ask_again(route, self._ingress.time())
        except Exception as error:  # noqa: BLE001 - as above
            self._on_bug(error)

    def _ask_again(self, route: Route, now: float) -> None:
        """Choose once more; without a connector go on waiting, until the time is up."""
        if self._waiter is not None:
            self._waiter.cancel()
            self._waiter = None
        self.waited += now - self._held_since
        session = self._choose(route)
        if session is not None:
            if self._may_try(route, now):
                self._open(route, session, now)
            else:
                self._fail(self.fault or _NO_CONNECTOR)
        elif now < self.due:
            self._hold(route, now)
        else:
            self._fail(_NO_CONNECTOR)
        self._go_on()

    def _open(self, route: Route, session: TunnelSession, now: float) -> None:
        """Put the push on a tunnel: one call with all there is of its body."""
        connection = self._connection
        self.session = session
        self.attempt += 1
        pieces = self._pieces
        body = b"" if pieces is None else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._state = _OPEN
        self.opened_at = now
        self.due = deadline = self._progress + route.timeout
        whole = self._has_whole_body
        if not whole:
            deadline += self._longest_body(route)
        try:
            # What asks for an upgrade has no body, but leaves its half open for what follows the 101.
            end = whole and (self.head.upgrade is None or not route.upgrades)
            stream = session.link.open_stream(self, self._encode(route), body, end, deadline)
        except LocalFault as error:  # it closed since it was chosen
            self._try_again(error.fault, is_safe=True)
            return
        self._stream = stream
        if pieces is not None:
            self._keep_pieces()
        if not whole:
            connection.body_is_wanted()
            if not stream.is_writable:
                connection.pause_reading()

    def _encode(self, route: Route) -> bytes:
        """The push's head for the tunnel: what differs from push to push, then the template."""
        head = self.head
        length = head.content_length
        if length is None and not head.is_chunked and head.method in _WITH_BODY:
            length = 0
        elif head.upgrade is not None and route.upgrades:
            length = None
        return encode_varying(self.request_id, self.attempt, length) + self._template(route)

    def _template(self, route: Route) -> bytes:
        """What repeats of the head, from memory where the connection's last push was of the same kind."""
        memo, sender, connection = self._memo, self.sender, self._connection
        if memo is not None and memo.prepared_for == (route, sender):
            return memo.prepared
        head = self.head
        headers = prepare_request_headers(
            head, peer=connection.source, scheme=connection.scheme, pass_authorization=route.pass_authorization
        )
        name = "" if sender is None else sender.name
        upgrade = head.upgrade if route.upgrades else None
        template = encode_template(route.target, name, route.name, head.method, head.target, headers, upgrade)
        if memo is not None:
            memo.prepared, memo.prepared_for, memo.described = template, (route, sender), ""
        return template

    def _longest_body(self, route: Route) -> float:
        """Seconds that the rest of the body may take at the slowest pace that is let pass."""
        length = self.head.content_length
        rest = (route.max_body if length is None else length) - self.bytes_in
        return rest / self._context.settings.slow_body_rate

    def _go_on(self) -> None:
        """After the push moved on by itself: reading goes on, and the timer is set to what comes next."""
        if self._state is not _DONE:
            stream = self._stream
            if stream is None:
                has_room = self._held_bytes < self._context.settings.replay_buffer
            else:
                has_room = stream.is_writable
            if has_room or self._has_whole_body:
                self._connection.resume_reading()
            self._connection.arm()

    def _keep_pieces(self) -> None:
        """The body so far is on a tunnel: it stays for another try while it is short and there is memory for it."""
        budget, size = self._context.budget, self.bytes_in
        budget.used += size - self._held_bytes
        self._held_bytes = size
        if size > self._context.settings.replay_buffer or budget.used > budget.limit >> 1:
            self._drop_pieces()

    def _check_deadline(self, route: Route, now: float) -> None:
        """Before the status line. While we wait for the sender's body, the target is not to blame."""
        if not self._has_whole_body and not self._connection.is_reading_paused:
            self.due = now + route.timeout
            return
        self.due = self._progress + route.timeout
        if now >= self.due:
            if self.session is not None:
                self._context.health.failed(route.key, self.session.identity.connector, _DEADLINE.code, now)
                route.metrics.try_failed(_DEADLINE.code, "time-spent")
            self._fail(_DEADLINE)
