"""A config for others: nothing private in it, and of every field somebody has said whether it is."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import BaseModel, BeforeValidator

from cloud_relay.config import RelayConfig
from connector_agent.config import ConnectorConfig
from shared.config import PRIVATE, ConfigModel, ConfigPath
from shared.config.redact import MASK, redacted
from shared.secrets import SecretHash, hash_secret, new_secret


class Odd:
    """Of a kind that nobody thought of."""

    def __str__(self) -> str:
        return "planted"


class Inner(ConfigModel):
    model_config = {"arbitrary_types_allowed": True}

    secret: Annotated[str, PRIVATE]
    headers: Annotated[dict[str, str], PRIVATE]
    several: Annotated[tuple[str, ...], PRIVATE] = ()
    none: Annotated[str | None, PRIVATE] = None
    hashed: SecretHash
    odd: Annotated[Any, BeforeValidator(lambda value: value)] = None
    url: str
    path: ConfigPath


class Outer(ConfigModel):
    inner: tuple[Inner, ...]
    by_name: dict[str, Inner]


def test_what_is_masked() -> None:
    inner = {
        "secret": "planted", "headers": {"X-Token": "planted"}, "several": ("planted", "planted"), "odd": Odd(),
        "hashed": hash_secret(new_secret()), "url": "https://keys.test/jwks?key=planted", "path": "/etc/x",
    }  # fmt: skip
    shown = redacted(Outer.model_validate({"inner": [inner], "by_name": {"a": inner}}))
    assert "planted" not in str(shown)
    assert shown["inner"][0] == shown["by_name"]["a"] == {
        "secret": MASK, "headers": {"X-Token": MASK}, "several": [MASK, MASK], "none": None, "hashed": MASK,
        "odd": MASK, "url": f"https://keys.test/jwks?{MASK}", "path": "/etc/x",
    }  # fmt: skip


def models(model: type[BaseModel], found: dict[str, type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """The model and all that its fields hold, by name."""
    found[model.__name__] = model
    for field in model.model_fields.values():
        for part in _parts(field.annotation):
            if isinstance(part, type) and issubclass(part, BaseModel) and part.__name__ not in found:
                models(part, found)
    return found


def _parts(annotation: Any) -> list[Any]:
    inner = getattr(annotation, "__args__", ())
    return [annotation, *(part for one in inner for part in _parts(one))]


PRIVATE_FIELDS = {
    "RelayConfig": {
        "BasicConfig.username", "BasicConfig.password_hash", "BearerConfig.token_hash", "ClientConfig.client_id",
        "ClientConfig.client_secret_hash", "JwtConfig.claims",
    },
    "ConnectorConfig": {"HeadersConfig.set"},
}  # fmt: skip


@pytest.mark.parametrize("config", [RelayConfig, ConnectorConfig], ids=lambda config: config.__name__)
def test_the_private_fields_of_our_configs(config: type[RelayConfig | ConnectorConfig]) -> None:
    found = {
        f"{name}.{key}"
        for name, model in models(config, {}).items()
        for key, field in model.model_fields.items()
        if PRIVATE in field.metadata
    }
    assert found == PRIVATE_FIELDS[config.__name__]


@pytest.mark.parametrize("config", [RelayConfig, ConnectorConfig], ids=lambda config: config.__name__)
def test_whatever_sounds_secret_is_private_or_a_file(config: type[RelayConfig | ConnectorConfig]) -> None:
    """A new field for a secret must not be forgotten."""
    for name, model in models(config, {}).items():
        for key, field in model.model_fields.items():
            if any(word in key for word in ("password", "secret", "token", "passphrase", "credential", "auth", "hash")):
                is_told = PRIVATE in field.metadata or key.endswith(("_file", "_files")) or field.annotation is bool
                is_section = any(
                    isinstance(one, type) and issubclass(one, BaseModel) for one in _parts(field.annotation)
                )
                assert is_told or is_section, f"{name}.{key}: PRIVATE, or not?"
