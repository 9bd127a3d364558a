"""What a model on this machine is asked with beside what every endpoint is: how many answers, how many at once.

Small models go on after the last row and give one row several answers, which here is held off by the number of answers
in the schema: llama.cpp turns ``minItems`` and ``maxItems`` into its grammar, at no cost. OpenAI's strict mode takes
them as well by a profile of February 2026, unproved here, and compiles every new schema anew, which with every size of
a chunk would cost time on a paid endpoint whose models do not need it; Anthropic refuses them. So they are sent to a
model of :mod:`lmsyz.local` alone. They are no part of a task: stored answers stay as good as they are.
"""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from lmsyz.providers.base import JsonObject
from lmsyz.schema import ENVELOPE

__all__ = ["LOCAL_ENDPOINT", "slots_at", "with_count"]

LOCAL_ENDPOINT = "local"
PATIENCE_S = 2.0


def with_count(envelope: JsonObject, user: Any) -> JsonObject:
    """Return a reply's schema that holds it to one answer a row.

    Parameters
    ----------
    envelope : dict
        The schema as every endpoint is sent it; it is not changed.
    user : str
        The rows as they are sent, a JSON array; with anything else the schema stays as it is.

    Examples
    --------
    >>> schema = {"type": "object", "properties": {"all_results": {"type": "array"}}}
    >>> with_count(schema, "[{}, {}]")["properties"]["all_results"]
    {'type': 'array', 'minItems': 2, 'maxItems': 2}
    """
    try:
        rows = json.loads(user)
    except (TypeError, ValueError):
        return envelope
    if not isinstance(rows, list) or not rows:
        return envelope
    results = {**envelope["properties"][ENVELOPE], "minItems": len(rows), "maxItems": len(rows)}
    return {**envelope, "properties": {**envelope["properties"], ENVELOPE: results}}


def slots_at(base_url: str | None) -> int | None:
    """Return how many requests llama.cpp's server on this machine answers at once, None where it does not say.

    More workers than that wait within the server, where each takes the others' time and none is done sooner.

    Parameters
    ----------
    base_url : str or None
        As the SDK takes it, with or without ``/v1``.
    """
    parts = urlsplit(base_url or "")
    if parts.scheme != "http" or not parts.hostname:
        return None
    # Not urllib, which would ask a proxy for the loopback address.
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/props")
        told = json.loads(connection.getresponse().read(1 << 20))
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()
    slots = told.get("total_slots") if isinstance(told, dict) else None
    return slots if isinstance(slots, int) and not isinstance(slots, bool) and slots > 0 else None
