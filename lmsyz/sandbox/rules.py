"""The sandbox's rules: from a JSON Schema and a text to an answer. A dictionary-method baseline, not a language model.

The same text always gets the same answer. A field is answered by the first of these that applies:

- **Only one value is allowed** (``const``, an enum of one): that value.
- **The text came as named fields** and one has this field's name: its value, copied.
- **A draft is asked for** (the text has a field ``goal``): see :mod:`lmsyz.sandbox.drafts`.
- **Enum.** Words for tone (positive/neutral/negative, good/bad, bullish/bearish, very/strongly for the ends, mixed):
  by VADER's compound score, from ±0.05 on. Hawkish/dovish: by counts of policy words. yes/no: as a boolean. Otherwise
  the value whose own words, or whose words in the field's description or the prompt's codebook (``value: words``),
  occur most often; if none does, the enum's own word for that (other, none, unknown, ...).
- **Boolean.** Whether the words of its name, or those after "mentions" or "about" in its description, occur without
  a negation just before them; ``has_amount`` and the like ask the rule of that name; ``is_positive`` asks VADER.
- **Label.** ``Price: $3`` in the text answers ``price``.
- **Format** (date, date-time, time, duration, email, uri, hostname, ipv4, ipv6, uuid): the first in the text.
- **Name or description** (words of the name from last to first, then the description's):

  ==============================================  ===================================================================
  digest, sha256                                  first 16 hex digits of SHA-256 over the text exactly as received
                                                  (named fields: over their JSON with ", " and ": ")
  image_sha256, image_type                        of the row's image: SHA-256 in hex over its bytes (over its address,
                                                  where it has one: nothing is fetched), ``image/png`` and the like
  image_width, image_height, image_bytes          of the row's image: pixels as its header has them (PNG, GIF); bytes
  input_opening                                   first 8 words; ``(no text)`` for an image alone
  sentiment, tone, polarity, score, rating        word, compound score, or that score on the schema's own scale
  amount, price, cost, revenue, ...               money: as written for a string, in full units for a number
  currency                                        ISO code
  percent, share, rate, growth, margin            as written, or the number (from 0 to 1 where ``maximum`` is 1)
  date, deadline; year; quarter; time             as written; ISO form for format ``date``
  n_words, n_characters, n_sentences              counts
  n_employees, number_of_stores, ...              the number before that noun
  company, firm, acquirer, target, person         names with a cue: Inc, Bank; "X said"; "X acquired Y"; Mr, President
  country, location                               a list of names; a capital after in, at, from
  quote; evidence, evidence_quote                 text in quotation marks; for evidence, else the first sentence
  summary, title, headline                        first sentence
  rationale, reason, explanation                  a sentence that says it was a rule
  language, keywords, email, url, phone           stop words; most frequent words; patterns
  ==============================================  ===================================================================

- **Pattern**: the first match in the text.
- **List**: everything that the rule finds. A list of objects: one for each sentence in which something was found.
- **Nothing applies**: null where the schema allows it, or the field is left out where it may be. A field that may be
  neither makes the object one that the sandbox cannot answer, and its row is left out of the reply. Never a guess, and
  never the first value of an enum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmsyz.sandbox.choices import NOTHING, boolean_rule, enum_rule
from lmsyz.sandbox.drafts import drafted_part
from lmsyz.sandbox.fields import Node, name_tokens, singular
from lmsyz.sandbox.scalars import Rule, copied_field, scalar_rule
from lmsyz.sandbox.text import Text

__all__ = ["NOTHING", "Rule", "compile_rule"]

MAX_DEPTH = 12
MAX_ITEMS = 50


BLIND = Rule(lambda text: (), blind=True)


def compile_rule(schema: Node, *, codebook: str = "") -> Rule:
    """Return the rule for a JSON Schema.

    Parameters
    ----------
    schema : mapping
        The whole schema, with its ``$defs``.
    codebook : str
        Text that may explain enum values: the system prompt.
    """
    return _Compiler(schema, codebook).rule(schema, "", 0)


class _Compiler:
    """Compiles one schema; knows its root for references and the codebook for enums."""

    def __init__(self, root: Node, codebook: str) -> None:
        self.root = root
        self.codebook = codebook

    def rule(self, node: Any, name: str, depth: int) -> Rule:
        if not isinstance(node, Mapping) or depth > MAX_DEPTH:
            return BLIND
        node = self._flat(node)
        if "const" in node:
            return Rule(lambda text: (node["const"],), extracts=False)
        for key in ("anyOf", "oneOf"):
            if isinstance(node.get(key), list):
                return self._union(node, node[key], name, depth)
        if isinstance(node.get("type"), list):
            kinds = node["type"]
            return self._union(node, [{"type": k} for k in kinds], name, depth)
        if "enum" in node:
            return self._enum(node, name)
        return self._typed(node, name, depth)

    def _flat(self, node: Node) -> dict[str, Any]:
        """Follow a reference and merge allOf, so that one mapping says all."""
        flat = dict(node)
        for _ in range(MAX_DEPTH):
            if "$ref" not in flat:
                break
            target = _pointed(self.root, str(flat.pop("$ref")))
            flat = {**target, **flat}
        for part in flat.pop("allOf", None) or []:
            if isinstance(part, Mapping):
                more = self._flat(part)
                properties = {**(flat.get("properties") or {}), **(more.get("properties") or {})}
                required = [*(flat.get("required") or []), *(more.get("required") or [])]
                flat = {**more, **flat}
                if properties:
                    flat["properties"], flat["required"] = properties, required
        return flat

    def _union(self, node: Node, branches: Sequence[Any], name: str, depth: int) -> Rule:
        rest = {k: v for k, v in node.items() if k not in ("anyOf", "oneOf", "type")}
        flats = [self._flat({**rest, **b}) for b in branches if isinstance(b, Mapping)]
        nullable = any(f.get("type") == "null" or f.get("const", 0) is None for f in flats)
        consts = [f for f in flats if isinstance(f.get("const"), str)]
        if consts and len(consts) >= len(flats) - nullable:
            return self._enum(_as_enum(consts, rest, nullable), name)
        rules = [self.rule(f, name, depth + 1) for f in flats if f.get("type") != "null"]
        nullable = nullable or any(r.nullable for r in rules)

        def every(text: Text) -> Sequence[Any]:
            return next((found for found in (r.every(text) for r in rules) if found), ())

        extracts = all(r.extracts for r in rules)
        return Rule(every, nullable=nullable, extracts=extracts, blind=all(r.blind for r in rules))

    def _enum(self, node: Node, name: str) -> Rule:
        choose = enum_rule(name, node, self.codebook)
        values = node["enum"]

        def every(text: Text) -> Sequence[Any]:
            copied = copied_field(text, name)
            return [copied] if copied in values else choose(text)

        return Rule(every, nullable=None in values, extracts=False)

    def _typed(self, node: Node, name: str, depth: int) -> Rule:
        kind = node.get("type")
        if kind == "object" or (kind is None and "properties" in node):
            return self._object(node, depth)
        if kind == "array" or (kind is None and "items" in node):
            return self._array(node, name, depth)
        if kind == "boolean":
            rule = boolean_rule(name, node)
            return Rule(_boolean(rule, name), extracts=False)
        if kind == "null":
            return Rule(lambda text: (), nullable=True, blind=True)
        if kind is None:
            scalar = scalar_rule({**node, "type": "string"}, name)
            return Rule(scalar.every, nullable=True, extracts=scalar.extracts, blind=scalar.blind)
        return scalar_rule(node, name)

    def _object(self, node: Node, depth: int) -> Rule:
        properties = node.get("properties") or {}
        required = set(node.get("required") or [])
        rules = [(n, self.rule(s, n, depth + 1), n in required) for n, s in properties.items()]
        extracting = [n for n, r, _ in rules if r.extracts and not r.blind]
        if not rules:
            return BLIND

        def every(text: Text) -> Sequence[Any]:
            answer: dict[str, Any] = {}
            for field, rule, needed in rules:
                found = drafted_part(text, field) or rule.every(text)
                if found:
                    answer[field] = found[0]
                elif needed and not rule.nullable:
                    return ()
                elif needed:
                    answer[field] = None
            # Within a text, an object of fields that all look for something says nothing if none found anything.
            empty = depth > 0 and len(extracting) == len(rules)
            return () if empty and all(v in (None, []) for v in answer.values()) else (answer,)

        return Rule(every, extracts=bool(extracting), blind=all(r.blind for _, r, _ in rules))

    def _array(self, node: Node, name: str, depth: int) -> Rule:
        items = node.get("items")
        rule = self.rule(items, " ".join(map(singular, name_tokens(name))) or name, depth + 1)
        if rule.blind:
            return BLIND
        low, high = int(node.get("minItems") or 0), min(int(node.get("maxItems") or MAX_ITEMS), MAX_ITEMS)
        is_object = isinstance(items, Mapping) and "properties" in self._flat(items)

        def every(text: Text) -> Sequence[Any]:
            found = _sentence_objects(rule, text) if is_object else list(rule.every(text))
            found = _distinct(found)[:high]
            return (found,) if len(found) >= low else ()

        return Rule(every, extracts=rule.extracts)


def _sentence_objects(rule: Rule, text: Text) -> list[Any]:
    if not rule.extracts:
        return list(rule.every(text))
    return [found[0] for found in (rule.every(text.part(s)) for s in text.sentences[:MAX_ITEMS]) if found]


def _distinct(values: Sequence[Any]) -> list[Any]:
    kept: list[Any] = []
    for value in values:
        if value not in kept:
            kept.append(value)
    return kept


def _pointed(root: Node, ref: str) -> Node:
    """Return what a local reference points to; an empty schema for one that points nowhere."""
    node: Any = root
    for part in ref.removeprefix("#").strip("/").split("/") if ref != "#" else []:
        key = part.replace("~1", "/").replace("~0", "~")
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def _as_enum(consts: Sequence[Node], rest: Node, nullable: bool) -> dict[str, Any]:
    """Return an anyOf of constants as an enum whose description holds the codebook of the constants' own."""
    book = "\n".join(f"{c['const']}: {c['description']}" for c in consts if c.get("description"))
    values = [c["const"] for c in consts] + ([None] if nullable else [])
    return {**rest, "enum": values, "description": f"{rest.get('description') or ''}\n{book}".strip()}


def _boolean(rule: Callable[[Text], Any], name: str) -> Callable[[Text], Sequence[Any]]:
    def every(text: Text) -> Sequence[Any]:
        copied = copied_field(text, name)
        answer = copied if isinstance(copied, bool) else rule(text)
        return () if answer is NOTHING else (answer,)

    return every
