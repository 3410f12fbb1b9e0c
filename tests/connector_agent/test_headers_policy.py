"""Which headers reach a target: ours win, identities do not pass, Host is what the config says."""

from __future__ import annotations

import pytest

from connector_agent.headers_policy import HeaderPolicy, check_header_name, check_header_value

HOST = (b"Host", b"target.test")


def names(policy: HeaderPolicy, *headers: tuple[bytes, bytes]) -> list[bytes]:
    return [name for name, _value in policy.apply(list(headers))]


def test_what_is_harmless_passes_in_order() -> None:
    headers = [(b"content-TYPE", b"a"), (b"X-Custom", b""), (b"X-Custom", b"2"), (b"Via", b"1.1 qanat")]
    assert HeaderPolicy("target.test").apply(headers) == [HOST, *headers]


@pytest.mark.parametrize("spelling", [b"Authorization", b"authorization", b"AUTHORIZATION"])
def test_ours_win_in_any_spelling(spelling: bytes) -> None:
    policy = HeaderPolicy("target.test", fixed={"X-Static": "1"}, secrets={"authorization": "Basic x"})
    headers = [(spelling, b"Basic sender"), (b"x-STATIC", b"2"), (spelling, b"again")]
    assert policy.apply(headers) == [HOST, (b"X-Static", b"1"), (b"authorization", b"Basic x")]


@pytest.mark.parametrize(
    "name",
    [
        b"X-Scope-OrgID", b"remote-user", b"X-Forwarded-User", b"X-WEBAUTH-USER",
        b"X-Forwarded-Tls-Client-Cert", b"X-Forwarded-Tls-Client-Cert-Info",
        b"X-Goog-Authenticated-User-Email", b"X-Goog-Authenticated-User-ID",
        b"X-MS-CLIENT-PRINCIPAL", b"X-Ms-Client-Principal-Name",
        b"Cf-Access-Authenticated-User-Email", b"Cf-Access-Jwt-Assertion",
        b"X-Pomerium-Jwt-Assertion", b"X-Pomerium-Claim-Email", b"Tailscale-User-Login", b"Tailscale-User-Name",
    ],
)  # fmt: skip
def test_identities_do_not_pass(name: bytes) -> None:
    assert names(HeaderPolicy("target.test"), (name, b"admin")) == [b"Host"]
    allowing = HeaderPolicy("target.test", allow=[name.decode().upper()])
    assert names(allowing, (name, b"admin")) == [b"Host", name]
    removing = HeaderPolicy("target.test", allow=[name.decode()], remove=[name.decode()])
    assert names(removing, (name, b"admin")) == [b"Host"]
    stating = HeaderPolicy("target.test", allow=[name.decode()], fixed={name.decode(): "us"})
    assert stating.apply([(name.upper(), b"admin")]) == [HOST, (name, b"us")]


def test_remove() -> None:
    policy = HeaderPolicy("target.test", remove=["X-Debug"])
    assert names(policy, (b"x-debug", b"1"), (b"X-Debugger", b"1")) == [b"Host", b"X-Debugger"]


def test_a_credential_that_the_route_lets_pass_stays() -> None:
    """The relay takes the sender's away unless the route says otherwise; this side has no say in it but `set`."""
    assert names(HeaderPolicy("target.test"), (b"Authorization", b"x")) == [b"Host", b"Authorization"]


def test_host_is_replaced_or_kept() -> None:
    sent = (b"host", b"Push.Example.com:443")
    assert HeaderPolicy("target.test:8443").apply([sent]) == [(b"Host", b"target.test:8443")]
    assert HeaderPolicy("target.test", keep_host=True).apply([sent]) == [sent]


@pytest.mark.parametrize(
    "hosts", [[], [(b"Host", b"a"), (b"host", b"b")], [(b"Host", b"a b")], [(b"Host", b"")], [(b"Host", b"a/b")]]
)
def test_a_host_that_is_unclear_is_not_kept(hosts: list[tuple[bytes, bytes]]) -> None:
    assert HeaderPolicy("target.test", keep_host=True).apply(hosts) == [HOST]


def test_new_contents_of_the_same_files() -> None:
    policy = HeaderPolicy("target.test", secrets={"Authorization": "old"})
    assert not policy.take_secrets(HeaderPolicy("target.test", secrets={"Authorization": "old"}))
    assert policy.take_secrets(HeaderPolicy("target.test", secrets={"Authorization": "new"}))
    assert policy.apply([]) == [HOST, (b"Authorization", b"new")]


def test_what_counts_as_a_credential_of_ours() -> None:
    assert HeaderPolicy("t", secrets={"X-Any": "x"}).injects_credential
    assert HeaderPolicy("t", fixed={"X-API-Key": "x"}).injects_credential
    assert not HeaderPolicy("t", fixed={"X-Static": "x"}).injects_credential


def test_no_secret_in_the_repr() -> None:
    assert "hunter2" not in repr(HeaderPolicy("t", secrets={"Authorization": "hunter2"}))


@pytest.mark.parametrize("name", ["Host", "content-length", "Connection", "TE", "X_Y", "", "Qanat-X", "X-Original-URL"])
def test_names_that_cannot_be_configured(name: str) -> None:
    with pytest.raises(ValueError, match=r"configured|header name"):
        check_header_name(name)


@pytest.mark.parametrize("value", ["", " \n", "a\nb", "a\r\nX: y", "ä", "a\0"])
def test_values_that_cannot_be_sent(value: str) -> None:
    with pytest.raises(ValueError, match="one line") as caught:
        check_header_value(value)
    assert not value.strip() or value not in str(caught.value)


def test_the_end_of_a_files_line_is_no_part_of_it() -> None:
    assert check_header_value("Basic abc\r\n") == "Basic abc"


def test_only_what_is_named_passes_and_what_is_needed_to_read_the_body() -> None:
    policy = HeaderPolicy("target.test", only=["X-Wanted"], allow=["X-Scope-OrgID"])
    passed = names(
        policy, (b"x-wanted", b"1"), (b"X-Other", b"1"), (b"Content-Type", b"a/b"), (b"X-Forwarded-For", b"192.0.2.1"),
        (b"X-Scope-OrgID", b"1"), (b"Remote-User", b"root"), (b"Cookie", b"a=b"),
    )  # fmt: skip
    assert passed == [b"Host", b"x-wanted", b"Content-Type", b"X-Forwarded-For", b"X-Scope-OrgID"]
    assert policy.passes(b"x-request-id")


@pytest.mark.parametrize(
    ("types", "is_allowed"),
    [
        ([], True),
        ([b"application/x-protobuf"], True),
        ([b"Application/X-Protobuf; proto=io.prometheus.write.v2.Request"], True),
        ([b"text/plain"], False),
        ([b""], False),
        ([b"application/x-protobuf", b"application/x-protobuf"], False),
        ([b"application/x-protobufs"], False),
    ],
)
def test_bodies_of_other_types_are_refused(types: list[bytes], is_allowed: bool) -> None:
    policy = HeaderPolicy("target.test", content_types=["application/x-protobuf"])
    headers = [(b"Content-Type", value) for value in types]
    assert policy.refusal(headers) == (None if is_allowed else "content-type-not-allowed")
    assert HeaderPolicy("target.test").refusal(headers) is None
