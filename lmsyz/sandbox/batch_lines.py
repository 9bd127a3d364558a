"""One request's result as each API writes it."""

from __future__ import annotations

import json

from lmsyz.sandbox.wire import JsonObject

__all__ = ["anthropic_line", "loosened", "openai_line"]

NOT_RUN = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "canceled": ("batch_cancelled", "This request was not executed, since the batch was cancelled."),
}
BARE = {"code": "server_error", "message": "The request could not be processed due to an internal error."}


def openai_line(custom_id: str, kind: str, found: JsonObject | None, tag: str) -> JsonObject:
    """Return a line of an output or error file.

    Parameters
    ----------
    custom_id : str
        Its name.
    kind : str
        ``"succeeded"``, ``"errored"``, ``"expired"`` or ``"canceled"``.
    found : dict or None
        Status and body of the answer, and whether it is an error that the endpoint had no part in.
    tag : str
        Names the line.
    """
    line: JsonObject = {"id": f"batch_req_{tag}", "custom_id": custom_id, "response": None, "error": None}
    if found is None:
        code, message = NOT_RUN[kind]
        return line | {"error": {"code": code, "message": message}}
    if found.get("bare"):
        return line | {"error": BARE}
    response = {"status_code": found["status"], "request_id": f"req_sandbox{found['tag']}", "body": found["body"]}
    return line | {"response": response}


def anthropic_line(custom_id: str, kind: str, found: JsonObject | None) -> JsonObject:
    """Return a line of the results; as :func:`openai_line`."""
    if found is None:
        return {"custom_id": custom_id, "result": {"type": kind}}
    body = found["body"]
    if kind == "errored":
        error = body | {"request_id": f"req_sandbox{found['tag']}"}
        return {"custom_id": custom_id, "result": {"type": "errored", "error": error}}
    usage = body["usage"] | {"service_tier": "batch"}
    return {"custom_id": custom_id, "result": {"type": "succeeded", "message": body | {"usage": usage}}}


def loosened(line: JsonObject) -> JsonObject:
    """Return a line of either API as OGX 1.5 writes it: a body as a JSON text, an error as a type and a message."""
    if "result" in line:
        result = line["result"]
        if result["type"] != "errored":
            return line
        flat = {"type": "api_error", "message": result["error"]["error"]["message"]}
        return line | {"result": {"type": "errored", "error": flat}}
    named, response = {"id": line["id"], "custom_id": line["custom_id"]}, line["response"]
    if response is None:
        return named | {"error": {"type": line["error"]["code"], "message": line["error"]["message"]}}
    if response["status_code"] != 200:
        return named | {"error": {"type": "request_failed", "message": response["body"]["error"]["message"]}}
    return named | {"response": response | {"body": json.dumps(response["body"])}}
