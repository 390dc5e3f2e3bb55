"""Drawings as they are kept: a secret that somebody has typed into one is sealed where it stands.

It is opened when the drawing is compiled, and nowhere else: who reads the drawing gets what is sealed, and
may send that back. A drawing's version is that of its meaning, secrets included: sealing does not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from flowserver.errors import NoEncryptionKey, SecretUnreadable
from flowserver.vault import Vault
from graphs.config import spellings
from nodes.contract import NodeType
from nodes.registry import Registry

SEALED = "sealed:v1."
"""How every sealed text begins."""

COPIED = frozenset(
    {
        "access_token",
        "api_key",
        "api_key_value",
        "auth_password",
        "auth_token",
        "client_secret",
        "cohere_api_key",
        "connection_string",
        "database_connection",
        "oauth2_client_secret",
        "oauth2_refresh_token",
        "openai_api_key",
        "password",
        "private_key",
        "service_account_json",
        "tavily_api_key",
        "webhook_token",
    }
)
"""Keys into which editors copy secrets, on nodes of any type."""


class Drawings:
    """Seals and opens the secrets of drawings. Without a vault that may do it, they are kept as they are."""

    def __init__(self, registry: Registry, vault: Vault | None) -> None:
        self._registry = registry
        self._vault = vault

    def kept(self, org: UUID, flow_data: Any) -> Any:
        """`flow_data` as it is stored; the same object where there is no secret in it."""
        vault = self._vault
        if vault is None:
            return flow_data

        def seal(text: str) -> str:
            if text.startswith(SEALED) or "{{" in text:  # a path to a secret is none
                return text
            try:
                return SEALED + vault.seal(text.encode("utf-8", "surrogatepass"), _context(org))
            except NoEncryptionKey:
                return text

        return self._changed(flow_data, lambda key, node_type: key in _secret_keys(node_type), seal)

    def opened(self, org: UUID, flow_data: Any) -> Any:
        """`flow_data` as it is compiled; the same object where nothing in it is sealed."""
        vault = self._vault
        if vault is None:
            return flow_data

        def open(text: str) -> str:
            if not text.startswith(SEALED):
                return text
            try:
                return vault.open(text[len(SEALED) :], _context(org)).decode("utf-8", "surrogatepass")
            except (SecretUnreadable, ValueError):
                return text  # of somebody else, or of a key that is gone: it is no secret that opens anything

        return self._changed(flow_data, lambda key, node_type: True, open)

    def _changed(
        self, flow_data: Any, chooses: Callable[[str, NodeType | None], bool], change: Callable[[str], str]
    ) -> Any:
        """The drawing with the chosen texts in its nodes' data changed, also in those that it runs."""
        if not isinstance(flow_data, Mapping):
            return flow_data
        found = dict(flow_data)
        if isinstance(nodes := flow_data.get("nodes"), list):
            new = [self._node(node, chooses, change) for node in nodes]
            if any(a is not b for a, b in zip(new, nodes, strict=True)):
                found["nodes"] = new
        if isinstance(called := flow_data.get("subflows"), Mapping):
            inside = {key: self._saved(saved, chooses, change) for key, saved in called.items()}
            if any(inside[key] is not called[key] for key in called):
                found["subflows"] = inside
        return found if any(found[key] is not flow_data[key] for key in found) else flow_data

    def _saved(self, saved: Any, chooses: Any, change: Callable[[str], str]) -> Any:
        if not isinstance(saved, Mapping):
            return saved
        drawing = self._changed(saved.get("flow_data"), chooses, change)
        return saved if drawing is saved.get("flow_data") else {**saved, "flow_data": drawing}

    def _node(self, node: Any, chooses: Any, change: Callable[[str], str]) -> Any:
        data = node.get("data") if isinstance(node, Mapping) else None
        if not isinstance(data, Mapping):
            return node
        node_type = self._registry.find(str(node.get("type")))
        new = {
            key: change(value) if isinstance(value, str) and value and chooses(key, node_type) else value
            for key, value in data.items()
        }
        return {**node, "data": new} if any(new[key] is not data[key] for key in data) else node


def _secret_keys(node_type: NodeType | None) -> frozenset[str]:
    return COPIED if node_type is None else COPIED | _secrets_of(node_type)


def _secrets_of(node_type: NodeType) -> frozenset[str]:
    return frozenset(spellings(node_type, secret=True))


def _context(org: UUID) -> str:
    return f"drawing:{org}"
