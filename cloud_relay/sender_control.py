"""What the command line may ask about senders, at the control socket.

GET  /v1/senders                            who they are, how they are known, and whether they are switched off
POST /v1/senders/{tenant}/{sender}/disable  switch one off: its next push gets 401, whatever tokens it has
POST /v1/senders/{tenant}/{sender}/enable   and on again
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from shared.control import ControlFault, ControlRequest, Handler, Routes
from shared.names import suggestion
from shared.pki.files import PkiError
from shared.status import timestamp

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig, SenderConfig
    from cloud_relay.metrics import SenderMetrics
    from cloud_relay.sender_state import SenderKey

KINDS = ("basic", "bearer", "oauth", "jwt", "certificate")


class SenderBook(Protocol):
    """The running relay, as far as senders go."""

    def listed(self) -> list[dict[str, Any]]:
        """All of them, for people."""

    def set_disabled(self, tenant: str, name: str, *, is_disabled: bool) -> bool:
        """Switch one off or on; False if it was so already. LookupError if there is none; PkiError, OSError if it
        cannot be."""


def senders_view(
    config: RelayConfig,
    disabled: Mapping[SenderKey, float],
    metrics: Mapping[tuple[str, str], SenderMetrics] | None = None,
) -> list[dict[str, Any]]:
    """Every sender of the config, and every one that is switched off though the config does not know it."""
    found: list[dict[str, Any]] = []
    for tenant, entry in config.tenants.items():
        for sender in entry.senders:
            key = (tenant, sender.name)
            counted = None if metrics is None else metrics.get(key)
            since = disabled.get(key)
            found.append(
                {
                    "tenant": tenant,
                    "sender": sender.name,
                    "credentials": kinds_of(sender),
                    "routes": [route.name for route in entry.routes if sender.name in route.senders],
                    "disabled": since is not None,
                    "disabled_at": None if since is None else timestamp(since),
                    "pushes": None if counted is None else counted.pushes,
                    "delivered": None if counted is None else counted.delivered,
                    "last_delivered": timestamp(counted.last_delivered)
                    if counted is not None and counted.last_delivered
                    else None,
                }
            )
    return found


def kinds_of(sender: SenderConfig) -> list[str]:
    """The kinds of credential that a sender has."""
    return [kind for kind in KINDS if getattr(sender, kind) is not None]


def unknown_sender(wanted: str, known: Iterable[str]) -> ControlFault:
    """What whoever asks for a sender (TENANT/NAME) is told that is none of the `known` ones."""
    near = suggestion(wanted, known) or "See 'cloud-relay senders list'."
    return ControlFault(404, "unknown-sender", f"the config has no sender {wanted}", near)


def sender_routes(book: SenderBook) -> Routes:
    """The handlers, bound to one relay."""

    async def show(_request: ControlRequest) -> dict[str, Any]:
        return {"senders": book.listed()}

    def switch(*, is_disabled: bool) -> Handler:
        async def handle(request: ControlRequest) -> dict[str, Any]:
            tenant, sender = request.params["tenant"], request.params["sender"]
            try:
                has_changed = book.set_disabled(tenant, sender, is_disabled=is_disabled)
            except LookupError as error:
                known = (f"{one['tenant']}/{one['sender']}" for one in book.listed())
                raise unknown_sender(f"{tenant}/{sender}", known) from error
            except PkiError as error:
                raise ControlFault(500, "state-unusable", str(error), "Nothing was changed.") from error
            except OSError as error:
                raise ControlFault(
                    500, "state-unusable", f"the state cannot be written: {error.strerror or error}",
                    "Nothing was changed. Look at the disk that state_dir is on.",
                ) from error  # fmt: skip
            return {"tenant": tenant, "sender": sender, "disabled": is_disabled, "changed": has_changed}

        return handle

    path = "/v1/senders/{tenant}/{sender}"
    return {
        ("GET", "/v1/senders"): show,
        ("POST", f"{path}/disable"): switch(is_disabled=True),
        ("POST", f"{path}/enable"): switch(is_disabled=False),
    }
