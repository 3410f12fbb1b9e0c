"""One target, without a relay: its files, its address, whether somebody answers, and what its rules allow."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from connector_agent.access import AccessRules, Rule
from connector_agent.build import Materials, make_targets, make_tcp_targets, read_materials
from connector_agent.metrics import ConnectorMetrics
from connector_agent.prechecks.identity import say_end
from connector_agent.probe.run import probe_target
from connector_agent.probe.spec import ProbeKind, ProbeSpec
from connector_agent.upstream.connect import Endpoint, allowed, resolve
from shared.addresses import is_address
from shared.errors import FAULTS, LocalFault
from shared.exits import ExitCode
from shared.pki.files import PkiError
from shared.prechecks import Checklist, Figure, Precheck, Stopwatch

if TYPE_CHECKING:
    from connector_agent.config import ConnectorConfig, TargetConfig
    from connector_agent.targets import Target
    from connector_agent.tcp.target import TcpTarget

SHOWN: Final = 6
"""Rules, and addresses, that a line names."""

_REMEDIES: Final = {
    "target-unreachable": "Look whether the target runs, and whether this host may reach it: route, firewall.",
    "target-too-slow": "Look whether the target runs, and whether a firewall drops what comes from this host.",
    "target-tls-failed": "Name the CA of the target's certificate in tls.ca; the name in url must be one of its names. "
    "A target that asks for a client certificate needs tls.certificate and tls.key.",
    "target-unexpected-status": "Look at the target; or say in the target's probe what it answers when it is well.",
}


class TargetCheck:
    """All steps for one target; see `run`. Make it inside a running event loop."""

    def __init__(self, config: ConnectorConfig, target: TargetConfig) -> None:
        self.checks = Checklist(f"target {target.name}, {target.url or f'tcp://{target.tcp}'}")
        self._config = config.model_copy(update={"targets": (target,)})
        self._target = target
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<TargetCheck {self.checks!r}>"

    async def run(self) -> list[Precheck]:
        """What needs nobody first; then the way there, up to the first step that fails."""
        self._say_rules()
        materials = await self._read()
        if await self._find():
            await self._reach(materials)
        return self.checks.rows

    # --- what needs nobody

    def _say_rules(self) -> None:
        """Each rule is asked whether it lets through what it says."""
        if self._target.tcp is not None:
            return
        rules = [Rule(one.methods, one.path, one.sub_paths) for one in self._target.allow]
        compiled = AccessRules(rules)
        if shut := [rule for rule in rules if not _lets_through(compiled, rule)]:
            self.checks.failed("allow", f"shut: {_told(shut)}", "Report this: these rules do not do what they say.")
        else:
            self.checks.ok("allow", _told(rules), Figure(len(rules), "rule" if len(rules) == 1 else "rules"))

    async def _read(self) -> Materials | None:
        try:
            read = await asyncio.to_thread(read_materials, self._config)
        except PkiError as error:
            self.checks.failed("files", str(error), "Mend that file: the connector does not start without.",
                               code="file-unusable", exit_code=ExitCode.CONFIG)  # fmt: skip
            return None
        materials = read[self._target.name]
        if materials.secrets:
            self.checks.ok("files", f"{', '.join(materials.secrets)} can be read")
        for one in materials.certificates:
            say_end(one, self.checks, datetime.now(UTC))
        return materials

    # --- the way there

    async def _find(self) -> bool:
        """Its addresses, and whether they may be dialled."""
        endpoint = _endpoint(self._target)
        try:
            with Stopwatch() as watch:
                async with asyncio.timeout(endpoint.timeout):
                    addresses = await resolve(endpoint, self._loop)
        except (LocalFault, TimeoutError) as error:
            told = error.detail if isinstance(error, LocalFault) else f"no answer within {endpoint.timeout:g} s"
            self.checks.failed("DNS", told, "Check the name, and this host's DNS: /etc/resolv.conf.",
                               code="target-unreachable")  # fmt: skip
            self.checks.skipped("after DNS", "networks", *self._steps())
            return False
        if is_address(endpoint.host):
            self.checks.skipped(f"{endpoint.host} is an address", "DNS")
        else:
            self.checks.ok("DNS", f"{endpoint.host} is {_few(addresses)}", watch.figure)
        try:
            dialled = allowed(endpoint, addresses)
        except LocalFault as fault:
            self.checks.failed("networks", fault.detail, "Mend the target's networks, or the name in DNS: what lies "
                               "elsewhere is never dialled.", code=fault.fault.code)  # fmt: skip
            self.checks.skipped("after networks", *self._steps())
            return False
        self._say_networks(endpoint, addresses, dialled)
        return True

    def _say_networks(self, endpoint: Endpoint, addresses: list[str], dialled: list[str]) -> None:
        if left_out := [one for one in addresses if one not in dialled]:
            self.checks.warning("networks", f"never dialled: {_few(left_out)}",
                                "Mend the target's networks, or the name in DNS.")  # fmt: skip
        elif endpoint.networks:
            self.checks.ok("networks", f"within {_few(list(map(str, endpoint.networks)))}")
        else:
            self.checks.skipped("any address that is not link-local or multicast", "networks")

    async def _reach(self, materials: Materials | None) -> None:
        """By the probe that relays ask for, one step further each time."""
        steps = self._steps()
        if materials is None:
            if self._has_tls:
                self.checks.skipped("after files", *steps)
                return
            materials = Materials({}, None, b"")  # a connection needs no file
        target = _make(self._config, materials)
        failed = ""
        for check, kind in steps.items():
            if failed:
                self.checks.skipped(f"after {failed}", check)
            elif not await self._probe(target, check, target.probe._replace(kind=kind)):
                failed = check

    def _steps(self) -> dict[str, ProbeKind]:
        steps = {"TCP": ProbeKind.TCP}
        if self._has_tls:
            steps["TLS"] = ProbeKind.TLS
        if self._target.probe.kind == "http":
            steps["answer"] = ProbeKind.HTTP
        return steps

    async def _probe(self, target: Target | TcpTarget, check: str, spec: ProbeSpec) -> bool:
        result = await probe_target(target, spec)
        figure = Figure(result.seconds * 1e3, "ms")
        if result.is_good:
            self.checks.ok(check, f"{result.status} to {spec.describe()}" if result.status else "", figure)
        else:
            remedy = _REMEDIES.get(result.code) or FAULTS[result.code].remedy
            self.checks.failed(check, result.detail, remedy, figure, code=result.code)
        return result.is_good

    @property
    def _has_tls(self) -> bool:
        return self._target.url is not None and self._target.url.scheme == "https"


def _make(config: ConnectorConfig, materials: Materials) -> Target | TcpTarget:
    """The one target of this config, as the daemon makes it. Nothing is connected, and nothing is to be closed."""
    metrics, name = ConnectorMetrics(), config.targets[0].name
    http = make_targets(config, {name: materials}, metrics, asyncio.get_running_loop(), lambda _name, _fault: None)
    return http[0] if http else make_tcp_targets(config, metrics)[0]


def _endpoint(target: TargetConfig) -> Endpoint:
    where = target.url or target.tcp
    if where is None:
        raise ValueError(f"target {target.name!r} has no address")  # config_checks lets none of these pass
    return Endpoint(where.host, where.port, None, target.networks, target.timeouts.connect)


def _lets_through(rules: AccessRules, rule: Rule) -> bool:
    below = f"{rule.path.rstrip('/')}/x"
    paths = [rule.path, below] if rule.sub_paths else [rule.path]
    return all(rules.check(method.encode(), path.encode()) is None for method in rule.methods for path in paths)


def _told(rules: list[Rule]) -> str:
    """ "POST /sap/frun and below; GET /x"."""
    return _few([f"{'|'.join(one.methods)} {one.path}{' and below' if one.sub_paths else ''}" for one in rules], "; ")


def _few(names: list[str], separator: str = ", ") -> str:
    rest = len(names) - SHOWN
    return separator.join([*names[:SHOWN], f"and {rest} more"] if rest > 0 else names)
