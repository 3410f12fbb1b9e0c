"""What becomes of pushes that are alike: judged once, and the start of their request written once.

A sender repeats method, path and headers on every push, so its pushes share a template. A plan is what one target's
rules make of one template; it is made anew when the target, or a secret in its headers, is another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import orjson

from shared.http.requests import serialize_request_start

if TYPE_CHECKING:
    from connector_agent.targets import Target
    from shared.http.push_head import PushHead, PushTemplate


MAX_LOGGED_PATH: Final = 256
"""Characters of a path in the access line."""


def describe_kind(push: PushTemplate | PushHead) -> dict[str, str]:
    """The part of an access line that alike pushes share; none of it is a header's value or a query."""
    return {
        "sender": push.sender,
        "route": push.route,
        "target": push.target,
        "method": push.method.decode("ascii"),
        "path": push.path.partition(b"?")[0][:MAX_LOGGED_PATH].decode("ascii"),
    }


class Plan:
    """`code` is why such pushes are refused, None if they are not; `start` is their request up to what differs;
    `described` what their access lines share, as JSON without its braces; `upgrades` whether they ask for a WebSocket
    and the target allows it: where it does not, the wish is dropped."""

    __slots__ = ("_revision", "_says_request_id", "_target", "code", "described", "start", "upgrades")

    def __init__(self, template: PushTemplate, target: Target) -> None:
        headers = target.headers
        self._target = target
        self._revision = headers.revision
        self._says_request_id = headers.passes(b"x-request-id")
        self.code = target.access.check(template.method, template.path) or headers.refusal(template.headers)
        self.upgrades = template.upgrade is not None and target.upgrades
        if template.upgrade is not None and template.method != b"GET":  # RFC 6455 §4.1; no honest relay sends it
            self.code = "bad-push"
        self.described = orjson.dumps(describe_kind(template))[1:-1].decode()
        self.start = b""
        if self.code is None:
            self.start = serialize_request_start(template.method, template.path, headers.apply(template.headers))

    def __repr__(self) -> str:
        return f"<Plan for {self._target.name}: {self.code or 'to be sent'}>"

    def fits(self, target: Target) -> bool:
        """Whether this is still what `target` makes of the template."""
        return target is self._target and target.headers.revision is self._revision

    def request(self, request_id: str, content_length: int | None, *, is_chunked: bool) -> bytes:
        """A whole request head. `request_id` was judged when the push was read."""
        ours = f"X-Request-Id: {request_id}\r\n" if self._says_request_id else ""
        if self.upgrades:
            ours += "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        elif is_chunked:
            ours += "Transfer-Encoding: chunked\r\n"
        elif content_length is not None:
            ours += f"Content-Length: {content_length}\r\n"
        return self.start + (ours + "\r\n").encode("ascii")


def plan_for(template: PushTemplate, target: Target) -> Plan:
    """The plan of `template` for `target`, from memory where it still fits."""
    plan = template.plan
    if type(plan) is not Plan or not plan.fits(target):
        plan = template.plan = Plan(template, target)
    return plan
