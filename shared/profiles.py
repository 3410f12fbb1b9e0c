"""What people push, as ready-made settings for a relay's routes and a connector's targets.

A profile fills what the config leaves out; whatever stands in the config wins. What each protocol's senders do with an
answer is from its specification, or from the sender's source; docs/senders says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

ProfileName = Literal["prometheus-remote-write", "otlp-http", "sap-focused-run", "influx", "generic"]

MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One kind of push. An empty `path` or list fills nothing.

    `body` is bytes. `quota_status` is what its senders take best for "too much"; `idempotent`, whether a push that may
    have been delivered may be sent again. `retried` are the statuses of ours after which its senders try again.
    """

    name: ProfileName
    title: str
    path: str = ""
    sub_paths: bool = False
    methods: tuple[str, ...] = ("POST",)
    content_types: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    body: int = 10 * MIB
    idempotent: bool = False
    quota_status: Literal[429, 503] = 429
    retried: str = "502, 503, 504"

    def route(self) -> dict[str, Any]:
        """Settings of a relay's route, as they would stand in the config."""
        match: dict[str, Any] = {"path": self.path, "sub_paths": self.sub_paths} if self.path else {}
        return {
            "match": match,
            "limits": {"body": self.body},
            "idempotent": self.idempotent,
            "quota_status": self.quota_status,
        }

    def target(self) -> dict[str, Any]:
        """Settings of a connector's target, as they would stand in the config."""
        settings: dict[str, Any] = {"limits": {"body": self.body}}
        if self.path:
            settings["allow"] = [{"methods": list(self.methods), "path": self.path, "sub_paths": self.sub_paths}]
        if self.content_types:
            settings["content_types"] = list(self.content_types)
        if self.headers:
            settings["headers"] = {"only": list(self.headers)}
        return settings

    def view(self) -> dict[str, Any]:
        """For the command line."""
        return {
            "profile": self.name,
            "title": self.title,
            "path": self.path or None,
            "sub_paths": self.sub_paths,
            "methods": list(self.methods),
            "content_types": list(self.content_types),
            "headers": list(self.headers),
            "body": self.body,
            "idempotent": self.idempotent,
            "quota_status": self.quota_status,
            "retried": self.retried,
        }


PROFILES: Final[Mapping[str, Profile]] = {
    one.name: one
    for one in (
        Profile(
            name="prometheus-remote-write",
            title="Prometheus remote write 1.0 and 2.0",
            path="/api/v1/write",
            content_types=("application/x-protobuf",),
            headers=("X-Prometheus-Remote-Write-Version", "User-Agent"),
            body=16 * MIB,
            idempotent=True,
            quota_status=503,
            retried="502, 503, 504; 429 only where told to",
        ),
        Profile(
            name="otlp-http",
            title="OpenTelemetry, OTLP over HTTP",
            path="/v1",
            sub_paths=True,
            content_types=("application/x-protobuf", "application/json"),
            headers=("User-Agent", "Traceparent", "Tracestate"),
            body=20 * MIB,
            retried="429, 502, 503, 504",
        ),
        Profile(
            name="sap-focused-run",
            title="SAP cloud services to Focused Run",
            path="/sap/frun",
            sub_paths=True,
            methods=("GET", "HEAD", "POST"),
            quota_status=503,
            retried="not documented; taken to be 502, 503, 504",
        ),
        Profile(
            name="influx",
            title="InfluxDB line protocol, version 2",
            path="/api/v2/write",
            content_types=("text/plain",),
            headers=("User-Agent", "Accept"),
            idempotent=True,
            retried="429, 502, 503, 504",
        ),
        Profile(name="generic", title="Anything else that is posted"),
    )
}
"""All profiles, by name."""


def fill(values: object, side: Literal["route", "target"]) -> object:
    """The values of a route or target as they stand in a config, with what its profile has to add."""
    if not isinstance(values, dict):
        return values
    profile = PROFILES.get(values["profile"]) if isinstance(values.get("profile"), str) else None
    if profile is None:
        return values
    return _filled(values, profile.route() if side == "route" else profile.target())


def _filled(values: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    filled = dict(values)
    for key, setting in settings.items():
        if isinstance(setting, dict) and isinstance(filled.get(key), dict):
            # A path of one's own says where; whether what is below it counts too is not the profile's to say any more.
            less = {} if key != "match" or "path" not in filled[key] else {"sub_paths"}
            filled[key] = _filled(filled[key], {name: one for name, one in setting.items() if name not in less})
        elif key not in filled and setting != {}:
            filled[key] = setting
    return filled
