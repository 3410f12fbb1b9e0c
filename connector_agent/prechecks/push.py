"""How this connector would judge one push: by the very code that judges those of a relay. Nothing is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from connector_agent.access import AccessRules, Rule
from shared.errors import FAULTS
from shared.exits import ExitCode
from shared.http.push_head import HeadError, decode_template, encode_template
from shared.prechecks import Checklist, Precheck

if TYPE_CHECKING:
    from connector_agent.config import ConnectorConfig


class Asked(NamedTuple):
    """A push as somebody has typed it."""

    method: str
    target: str
    path: str


def judge_push(config: ConnectorConfig, asked: Asked) -> list[Precheck]:
    """Whether method and path may reach the target; one line."""
    checks = Checklist(f"push {asked.method} {asked.target} {asked.path}")
    target = next((one for one in config.targets if one.name == asked.target), None)
    if target is None:
        names = ", ".join(one.name for one in config.targets) or "none at all"
        checks.failed("judgement", f"this connector exposes no target {asked.target!r}; it has {names}",
                      "Add it under targets, or correct the route's target at the relay.", code="unknown-target",
                      exit_code=ExitCode.NOT_FOUND)  # fmt: skip
    elif target.url is None:
        checks.failed("judgement", f"{target.name} is a tcp target: it takes connections, not requests",
                      "Push to it by a TCP route of the relay; it has no rules for methods and paths.",
                      exit_code=ExitCode.REFUSED)  # fmt: skip
    else:
        rules = AccessRules(Rule(one.methods, one.path, one.sub_paths) for one in target.allow)
        code = _judge(rules, asked)
        if code == "bad-push":
            checks.failed("judgement", "no HTTP request has such a method or path",
                          "Write it as a sender would: --push POST focused-run /sap/frun", code=code,
                          exit_code=ExitCode.REFUSED)  # fmt: skip
        elif code is None:
            checks.ok("judgement", f"would go to {target.url}{asked.path}")
        else:
            fault = FAULTS[code]
            checks.failed("judgement", fault.title, fault.remedy, code=code, exit_code=ExitCode.REFUSED)
    return checks.rows


def _judge(rules: AccessRules, asked: Asked) -> str | None:
    method, path = (text.encode("utf-8", "surrogateescape") for text in (asked.method, asked.path))
    try:
        template = decode_template(encode_template(asked.target, "precheck", "precheck", method, path, []))
    except HeadError as error:
        return error.fault.code
    except ValueError:
        return "bad-push"
    return rules.check(template.method, template.path)
