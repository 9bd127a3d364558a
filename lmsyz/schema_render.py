"""One row schema as each provider's own structured output wants it: an ``all_results`` envelope within its limits.

Limits: OpenAI's strict mode takes 5,000 properties, 10 levels, 1,000 enum values and 120,000 characters of names and
enums, with every property required; Claude takes 24 optional properties and 16 union-typed ones, and no bounds or
lengths (both as documented by the providers in November 2026).
"""

from __future__ import annotations

from typing import Any, Literal

from lmsyz.errors import UsageError
from lmsyz.rows import ID_FIELD, OPENING_FIELD
from lmsyz.schema import RowSchema
from lmsyz.schema_nodes import Node, nullable, split_null

__all__ = ["render"]

Target = Literal["openai", "anthropic"]

OPENAI_PROPERTIES, OPENAI_LEVELS, OPENAI_ENUM_VALUES, OPENAI_CHARACTERS = 5000, 10, 1000, 120_000
CLAUDE_OPTIONAL, CLAUDE_UNIONS = 24, 16
BOUNDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
)
TO_WORDS = {
    "openai": ("minLength", "maxLength"),
    "anthropic": (*BOUNDS, "pattern", "minItems", "maxItems"),
}


def render(schema: RowSchema | None, target: Target, *, verify: bool = False) -> dict[str, Any]:
    """Return the schema of a whole reply.

    Parameters
    ----------
    schema : RowSchema or None
        One row's answer; None asks for the ids alone.
    target : str
        ``"openai"`` or ``"anthropic"``.
    verify : bool
        Whether each row also repeats its opening words.

    Returns
    -------
    dict
        JSON Schema of ``{"all_results": [{"input_id": ..., <fields>}, ...]}``.

    Raises
    ------
    UsageError
        The schema is beyond the provider's limits.
    """
    row = schema.json_schema if schema else {"type": "object", "properties": {}, "required": []}
    own = {ID_FIELD: {"type": "string"}} | ({OPENING_FIELD: {"type": "string"}} if verify else {})
    full = {**row, "properties": own | row["properties"], "required": [*own, *row.get("required", [])]}
    item = _Budget(target).object(full, level=3)
    return {
        "type": "object",
        "properties": {"all_results": {"type": "array", "items": item}},
        "required": ["all_results"],
        "additionalProperties": False,
    }


class _Budget:
    """Renders one schema, counting what the provider limits."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.properties = self.values = self.characters = self.optional = self.unions = 0

    def object(self, node: Node, *, level: int) -> Node:
        required = set(node.get("required", []))
        properties: Node = {}
        must = []
        for name, sub in node["properties"].items():
            self._count(name, level)
            properties[name], needed = self._property(sub, name in required, level, name)
            if needed:
                must.append(name)
        rest = {k: v for k, v in node.items() if k in ("description",)}
        shape = {"type": "object", "properties": properties, "required": must, "additionalProperties": False}
        return rest | shape

    def _property(self, sub: Node, required: bool, level: int, name: str) -> tuple[Node, bool]:
        core, has_null = split_null(sub)
        if required and not has_null:
            return self._value(sub, level, name), True
        if self.target == "openai":
            return self._value(nullable(sub), level, name), True
        # A null is said outright while Claude's unions last, an optional field by leaving it out.
        if has_null and required and self.unions < CLAUDE_UNIONS:
            return self._value(nullable(core), level, name), True
        if self.optional < CLAUDE_OPTIONAL:
            self.optional += 1
            return self._value(core, level, name), False
        if self.unions < CLAUDE_UNIONS:
            return self._value(nullable(core), level, name), True
        raise UsageError(
            f"schema field {name!r}: Claude takes {CLAUDE_OPTIONAL} optional and {CLAUDE_UNIONS} nullable fields in one"
            " schema; make some of them plain (no Optional) or ask for them in a second call"
        )

    def _value(self, node: Node, level: int, name: str) -> Node:
        node = self._words(node)
        if "anyOf" in node:
            self.unions += 1
            if self.target == "anthropic" and self.unions > CLAUDE_UNIONS:
                raise UsageError(
                    f"schema field {name!r}: Claude takes {CLAUDE_UNIONS} union types in one schema"
                )
            return node | {"anyOf": [self._value(n, level, name) for n in node["anyOf"]]}
        if node.get("type") == "array":
            return node | {"items": self._value(node["items"], level + 1, name)}
        if node.get("type") == "object":
            return self.object(node, level=level + 1)
        self._count_enum(node, name)
        return node

    def _words(self, node: Node) -> Node:
        """Move what the provider cannot enforce into the description; every answer is validated here anyway."""
        moved = {k: node[k] for k in TO_WORDS[self.target] if k in node}
        if not moved:
            return dict(node)
        rest = {k: v for k, v in node.items() if k not in moved}
        words = ", ".join(f"{k}: {v}" for k, v in moved.items())
        return rest | {"description": f"{rest.get('description', '')} ({words})".strip()}

    def _count(self, name: str, level: int) -> None:
        self.properties += 1
        self.characters += len(name)
        if self.target == "openai":
            if self.properties > OPENAI_PROPERTIES or self.characters > OPENAI_CHARACTERS:
                raise UsageError(
                    f"schema field {name!r} is one too many for OpenAI's strict mode; ask in two calls"
                )
            if level > OPENAI_LEVELS:
                raise UsageError(
                    f"schema field {name!r} is nested deeper than OpenAI's {OPENAI_LEVELS} levels"
                )

    def _count_enum(self, node: Node, name: str) -> None:
        values = node.get("enum", [])
        size = sum(len(str(v)) for v in values)
        self.values += len(values)
        self.characters += size
        too_long = self.values > OPENAI_ENUM_VALUES or (len(values) > 250 and size > 15_000)
        if self.target == "openai" and (too_long or self.characters > OPENAI_CHARACTERS):
            raise UsageError(
                f"schema field {name!r}: OpenAI's strict mode takes {OPENAI_ENUM_VALUES:,} enum values in all; use str and"
                " map the values afterwards"
            )
