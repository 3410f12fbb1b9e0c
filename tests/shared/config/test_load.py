from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from typing import Literal

import pytest
from pydantic import Field, SecretStr

from shared.config import (
    ConfigError,
    ConfigFile,
    ConfigModel,
    ConfigPath,
    Flaw,
    HostPortField,
    Listen,
    ListenField,
    json_schema,
    load_config,
    read_config,
)
from shared.units import Duration, Size


class Limits(ConfigModel):
    body: Size = 1024
    """The largest body, in bytes."""


class Basic(ConfigModel):
    kind: Literal["basic"]
    password: SecretStr


class Bearer(ConfigModel):
    kind: Literal["bearer"]
    token: SecretStr


class Tenant(ConfigModel):
    locations: list[str] = []
    limits: Limits = Limits()
    senders: list[Basic | Bearer] = []


class Config(ConfigModel):
    name: str = "x"
    port: int = 0
    on: bool = False
    wait: Duration = 1.0
    listen: ListenField | None = None
    to: HostPortField | None = None
    state_dir: ConfigPath | None = None
    key: ConfigFile | None = None
    tenants: dict[str, Tenant] = {}

    def flaws(self):
        for name, tenant in self.tenants.items():
            for index, location in enumerate(tenant.locations):
                if location == "nowhere":
                    yield Flaw(("tenants", name, "locations", index), "there is no such location")


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "relay.yaml") -> Path:
        path: Path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write


def problems_of(path: Path, model: type[ConfigModel] = Config) -> list[str]:
    """Each problem as 'file:line: key: message', the file without its folder."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, model)
    assert caught.value.problems
    return [str(p._replace(path=p.path.relative_to(path.parent))) for p in caught.value.problems]


def test_an_empty_file_gives_the_defaults(write):
    assert load_config(write(""), Config) == Config()
    assert load_config(write("# only a comment\n"), Config) == Config()


def test_values_of_every_kind(write):
    config = load_config(
        write(
            """
            name: relay-1
            port: 7
            on: true
            wait: 500ms
            listen: ":8443"
            to: "[::1]:514"
            state_dir: state
            tenants:
              acme: {locations: [walldorf, rot], limits: {body: 10MiB}}
            """
        ),
        Config,
    )
    assert (config.name, config.port, config.on, config.wait) == ("relay-1", 7, True, 0.5)
    assert config.listen == Listen("", 8443)
    assert config.to == ("::1", 514)
    assert config.tenants["acme"].limits.body == 10 << 20


def test_the_model_is_frozen(write):
    config = load_config(write(""), Config)
    with pytest.raises(ValueError, match="frozen"):
        config.name = "y"  # type: ignore[misc] # what is forbidden is tried


class TestPlaces:
    def test_an_unknown_key_is_named_with_what_was_probably_meant(self, write):
        assert problems_of(write("tenants:\n  acme:\n    limits:\n      bdoy: 1\n")) == [
            "relay.yaml:4: tenants.acme.limits.bdoy: this key is not known; did you mean 'body'?"
        ]

    def test_an_unknown_key_like_no_other_lists_what_is_known(self, write):
        assert problems_of(write("tenants: {a: {limits: {zzz: 1}}}")) == [
            "relay.yaml:1: tenants.a.limits.zzz: this key is not known; known here: body"
        ]

    def test_all_problems_at_once_in_the_order_of_lines(self, write):
        assert problems_of(
            write(
                """\
                port: many
                on: maybe
                wait: 5 parsecs
                listen: 8443
                tenants:
                  acme:
                    locations:
                      - ok
                      - 123
                """
            )
        ) == [
            "relay.yaml:1: port: must be a whole number",
            "relay.yaml:2: on: must be true or false",
            (
                'relay.yaml:3: wait: "5 parsecs" is not a duration; write a number with ms, s, m, h or d, '
                "or a plain number of seconds: 5s, 500ms, 2m"
            ),
            'relay.yaml:4: listen: this is no address to listen on; write ":8443", "127.0.0.1:9000" or "[::1]:443"',
            "relay.yaml:9: tenants.acme.locations[1]: must be a text; put it in quotes",
        ]

    def test_a_missing_key_stands_where_its_mapping_does(self, write):
        class Inner(ConfigModel):
            url: str

        class Outer(ConfigModel):
            targets: list[Inner]

        assert problems_of(write("targets:\n  - {url: a}\n  - {}\n"), Outer) == [
            "relay.yaml:3: targets[1].url: this key is missing"
        ]

    def test_a_key_without_a_value(self, write):
        assert problems_of(write("name:\ntenants:\n")) == [
            "relay.yaml:1: name: has no value; it must be a text",
            "relay.yaml:2: tenants: has no value; it must be a mapping of names to values",
        ]

    def test_members_of_unions_do_not_show_in_the_key(self, write):
        problems = problems_of(write("tenants:\n  acme:\n    senders:\n      - {kind: basic, password: 5}\n"))
        assert all(problem.startswith("relay.yaml:4: tenants.acme.senders[0]") for problem in problems)
        assert not any("Basic" in problem or "Bearer" in problem for problem in problems)

    def test_a_name_that_is_no_name_is_reported_at_its_key(self, write):
        from typing import Annotated

        class Names(ConfigModel):
            tenants: dict[Annotated[str, Field(pattern="^[a-z]+$")], int]

        (problem,) = problems_of(write("tenants:\n  ok: 1\n  'B ad': 1\n"), Names)
        assert problem.startswith('relay.yaml:3: tenants["B ad"]: ')

    def test_flaws_between_values_have_places_too(self, write):
        assert problems_of(write("tenants:\n  acme:\n    locations:\n      - here\n      - nowhere\n")) == [
            "relay.yaml:5: tenants.acme.locations[1]: there is no such location"
        ]


class TestSecrets:
    def test_a_secret_shows_in_no_message_and_no_repr(self, write):
        path = write("tenants: {a: {senders: [{kind: basic, password: hunter2-hunter2}]}}")
        assert "hunter2" not in repr(load_config(path, Config))
        bad = write("tenants: {a: {senders: [{kind: nope, password: hunter2-hunter2, token: hunter2}]}}")
        assert "hunter2" not in "\n".join(problems_of(bad))


class TestPaths:
    def test_relative_paths_are_relative_to_their_file(self, write, tmp_path):
        write("tenants: {}\nkey: k.pem\n", "conf.d/a.yaml")
        write("secret", "conf.d/k.pem")
        config = load_config(write("state_dir: state\ninclude: [conf.d/*.yaml]\n"), Config)
        assert config.state_dir == tmp_path / "state"
        assert config.key == tmp_path / "conf.d" / "k.pem"

    def test_absolute_paths_stay(self, write):
        assert load_config(write("state_dir: /var/lib/x"), Config).state_dir == Path("/var/lib/x")

    def test_a_file_that_must_be_there(self, write):
        (problem,) = problems_of(write("\nkey: no.pem\n"))
        assert problem.startswith("relay.yaml:2: key: ")
        assert problem.endswith("no.pem cannot be read: No such file or directory")

    def test_an_empty_path(self, write):
        assert problems_of(write("key: ''")) == [
            "relay.yaml:1: key: a path must not be empty, nor hold a NUL character"
        ]

    def test_a_credential_of_the_service_manager(self, write, tmp_path):
        write("secret", "credentials/k.pem")
        path = write("key: $CREDENTIALS_DIRECTORY/k.pem\nstate_dir: $CREDENTIALS_DIRECTORY/not-there\n")
        loaded = read_config(path, Config, tmp_path / "credentials")
        assert loaded.config.key == tmp_path / "credentials" / "k.pem"
        assert loaded.config.state_dir == tmp_path / "credentials" / "not-there"
        assert loaded.watched() == [path, tmp_path / "credentials" / "k.pem"]
        assert read_config(path, Config, loaded.credentials) == loaded

    def test_a_credential_without_a_service_manager(self, write):
        (problem,) = problems_of(write("key: $CREDENTIALS_DIRECTORY/k.pem"))
        assert problem.startswith("relay.yaml:1: key: $CREDENTIALS_DIRECTORY is not set: ")
        assert problem.endswith("as CREDENTIALS_DIRECTORY=/run/credentials/qanat-connector.service")

    @pytest.mark.parametrize(
        "path",
        [
            "$HOME/k.pem",
            "${CREDENTIALS_DIRECTORY}/k.pem",
            *(f"$CREDENTIALS_DIRECTORY{rest}" for rest in ("", "/", "/a/b", "/..", "X/a")),
        ],
    )
    def test_nothing_else_is_expanded(self, write, tmp_path, path):
        with pytest.raises(ConfigError, match=r"nothing but \$CREDENTIALS_DIRECTORY/NAME may begin with a \$"):
            read_config(write(f"key: {path}"), Config, tmp_path)

    def test_without_a_file_a_path_is_taken_as_it_is(self):
        assert Config(state_dir=Path("a")).state_dir == Path("a")

    def test_what_to_watch(self, write, tmp_path):
        write("", "k.pem")
        write("name: y", "conf.d/a.yaml")
        loaded = read_config(write("key: k.pem\ninclude: [conf.d/*.yaml]"), Config)
        assert loaded.watched() == [
            tmp_path / "relay.yaml",
            tmp_path / "conf.d" / "a.yaml",
            tmp_path / "conf.d",
            tmp_path / "k.pem",
        ]


class TestInclude:
    def test_mappings_are_merged_deeply(self, write):
        write("tenants: {acme: {limits: {body: 5}}}", "conf.d/1.yaml")
        write("tenants: {emca: {}}\nport: 9", "conf.d/2.yaml")
        config = load_config(write("tenants: {acme: {locations: [a]}}\ninclude: [conf.d/*.yaml]"), Config)
        assert config.port == 9
        assert list(config.tenants) == ["acme", "emca"]
        assert config.tenants["acme"] == Tenant(locations=["a"], limits=Limits(body=5))

    def test_a_value_set_twice_names_both_places(self, write, tmp_path):
        write("\nport: 2\n", "conf.d/1.yaml")
        assert problems_of(write("port: 1\ninclude: [conf.d/*.yaml]")) == [
            f"conf.d/1.yaml:2: port: is set here and at {tmp_path}/relay.yaml:1; set it in one place only"
        ]

    def test_a_list_is_one_value(self, write):
        write("tenants: {acme: {locations: [b]}}", "1.yaml")
        (problem,) = problems_of(write("tenants: {acme: {locations: [a]}}\ninclude: [1.yaml]"))
        assert "tenants.acme.locations: is set here and at" in problem

    def test_problems_stand_in_the_included_file(self, write):
        write("\n\ntenants: {acme: {limit: 1}}", "conf.d/1.yaml")
        assert problems_of(write("include: [conf.d/*.yaml]")) == [
            "conf.d/1.yaml:3: tenants.acme.limit: this key is not known; did you mean 'limits'?"
        ]

    def test_wildcards_may_match_nothing_but_names_may_not(self, write, tmp_path):
        assert load_config(write("include: [conf.d/*.yaml]"), Config) == Config()
        assert problems_of(write("include: [other.yaml]")) == [
            f"relay.yaml:1: include: {tmp_path}/other.yaml does not exist"
        ]

    def test_hidden_files_are_left_out(self, write):
        write("port: 1", "conf.d/.a.yaml.swp.yaml")
        assert load_config(write("include: [conf.d/*.yaml]"), Config).port == 0

    @pytest.mark.parametrize("value", ["a.yaml", "5", "[5]", "{a: b}", "[[a]]", ""])
    def test_include_must_be_a_list_of_names(self, write, value):
        assert problems_of(write(f"include: {value}")) == [
            "relay.yaml:1: include: must be a list of file names, as [conf.d/*.yaml]"
        ]

    @pytest.mark.parametrize("value", ["''", "'**x'", "/", "."])
    def test_odd_patterns_do_no_harm(self, write, value):
        path = write(f"include: [{value}]")
        try:
            load_config(path, Config)
        except ConfigError as error:
            assert "does not exist" in str(error)

    def test_no_file_twice_and_no_includes_inside(self, write):
        write("port: 1", "a.yaml")
        write("include: [a.yaml]", "b.yaml")
        problems = problems_of(write("include: [a.yaml, b.yaml, '?.yaml']"))
        assert len(problems) == 3
        assert "an included file cannot include others" in problems[0]
        assert all("is included twice" in problem for problem in problems[1:])

    def test_the_main_file_does_not_include_itself(self, write):
        assert "relay.yaml is included twice" in problems_of(write("include: ['*.yaml']"))[0]


class TestSchema:
    def test_describes_fields_by_their_docstrings_and_refuses_unknown_keys(self):
        schema = json_schema(Config)
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert schema["additionalProperties"] is False
        assert schema["$defs"]["Limits"]["properties"]["body"]["description"] == "The largest body, in bytes."

    def test_knows_include(self):
        assert json_schema(Config)["properties"]["include"]["items"] == {"type": "string"}


@pytest.mark.parametrize("value", [":0", "localhost:1", "127.0.0.1:65535", "[::1]:443", "a.example.com.:5", "x_y:1"])
def test_addresses_to_listen_on(value):
    assert Config.model_validate({"listen": value}).listen


@pytest.mark.parametrize(
    "value",
    [
        "",
        ":",
        "8443",
        ":65536",
        ":-1",
        ":+1",
        ":٣",
        "::1:80",
        "[::1]",
        "[::1",
        "[zz]:1",
        "a b:1",
        "a..b:1",
        "-a:1",
        ":08",
        1,
        None,
        ":1\n",
    ],
)
def test_what_is_no_address_is_refused(value):
    from shared.config.model import parse_host_port, parse_listen

    with pytest.raises(ValueError, match="this is no address to listen on"):
        parse_listen(value)
    with pytest.raises(ValueError, match="this is no address to connect to"):
        parse_host_port(value)


@pytest.mark.parametrize("value", [":80", "host:0"])
def test_connecting_needs_a_host_and_a_port(value):
    with pytest.raises(ValueError, match="this is no address to connect to"):
        Config.model_validate({"to": value})


def test_addresses_read_as_they_are_written():
    assert str(Listen("", 8443)) == ":8443"
    assert str(Listen("::1", 443)) == "[::1]:443"
