"""What a batch is created from: OpenAI's input file and Anthropic's list, checked and read a request at a time."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lmsyz.sandbox import anthropic_common
from lmsyz.sandbox.answers import Row, read_rows
from lmsyz.sandbox.batches import problem
from lmsyz.sandbox.text import Text
from lmsyz.sandbox.wire import MODELS, JsonObject

__all__ = ["ANTHROPIC_MOST", "OPENAI_MOST", "Checked", "check_openai", "requests_in", "rows_of", "split_anthropic"]

OPENAI_MOST, ANTHROPIC_MOST = 50_000, 100_000
TOLD_PROBLEMS = 20
BLOCK = 1024 * 1024
LARGEST_REQUEST = 32 * 1024 * 1024
CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
NOT_JSON = "The request body is not valid JSON"
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(slots=True, kw_only=True)
class Checked:
    """What a check found: requests, rows, the one model, and what is wrong."""

    n: int = 0
    n_rows: int = 0
    model: str = ""
    problems: list[JsonObject] = field(default_factory=list)


def requests_in(path: Path) -> Iterator[tuple[str, JsonObject]]:
    """Go through a batch's requests: custom_id and body."""
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield request_of(line)


def request_of(line: bytes) -> tuple[str, JsonObject]:
    """Return the custom_id and the body of a line that has been checked."""
    request = json.loads(line)
    return request["custom_id"], request["body"] if "body" in request else request["params"]


def rows_of(body: JsonObject) -> list[Row]:
    """Return the rows that a body asks about; one without an id where it is not in rows form."""
    user = _last_user_text(body)
    return read_rows(user) or [Row(id="", text=Text(user))]


def _last_user_text(body: JsonObject) -> str:
    messages = body.get("messages", body.get("input"))
    if isinstance(messages, str):
        return messages
    for message in reversed(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            parts = [content] if isinstance(content, str) else content if isinstance(content, list) else []
            texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
            return "".join(text for text in texts if isinstance(text, str))
    return ""


# --- OpenAI ---------------------------------------------------------------------------------------------------------


def check_openai(path: Path, endpoint: str) -> Checked:
    """Check an input file as it is checked after a batch has been created of it."""
    found, seen = Checked(), set[str]()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            found.n += 1
            if found.n > OPENAI_MOST:
                said = f"This batch has more than the {OPENAI_MOST} requests that one batch may have."
                return Checked(n=found.n, problems=[problem("too_many_tasks", said)])
            wrong = _line_problem(line, number, endpoint, seen, found)
            if wrong is not None and len(found.problems) < TOLD_PROBLEMS:
                found.problems.append(wrong)
    if not found.n:
        found.problems.append(problem("empty_file", "The input file is empty. Please add requests to it."))
    return found


def _line_problem(line: bytes, number: int, endpoint: str, seen: set[str], found: Checked) -> JsonObject | None:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        return problem("invalid_json_line", "This line is not parseable as valid JSON.", line=number)
    for name, kind in (("custom_id", str), ("method", str), ("url", str), ("body", dict)):
        if not isinstance(request.get(name), kind) or not request[name]:
            said = f"Missing required parameter: '{name}'."
            return problem("missing_required_parameter", said, line=number, param=name)
    if request["method"] != "POST":
        said = f"The method '{request['method']}' is not supported. Use 'POST'."
        return problem("invalid_method", said, line=number, param="method")
    if request["url"] != endpoint:
        said = f"The URL '{request['url']}' does not match the batch's endpoint '{endpoint}'."
        return problem("url_mismatch", said, line=number, param="url")
    if request["custom_id"] in seen:
        said = f"The custom_id '{request['custom_id'][:64]}' is there more than once."
        return problem("duplicate_custom_id", said, line=number, param="custom_id")
    seen.add(request["custom_id"])
    found.n_rows += len(rows_of(request["body"]))
    return _model_problem(request["body"].get("model"), number, found)


def _model_problem(model: object, number: int, found: Checked) -> JsonObject | None:
    if not isinstance(model, str) or model not in MODELS:
        said = f"The provided model '{model}' is not supported by the Batch API. The sandbox has {', '.join(MODELS)}."
        return problem("model_not_found", said, line=number, param="body.model")
    found.model = found.model or model
    if model != found.model:
        said = f"A batch has one model; this line has '{model}' where those before it have '{found.model}'."
        return problem("model_mismatch", said, line=number, param="body.model")
    return None


# --- Anthropic ------------------------------------------------------------------------------------------------------


def split_anthropic(source: Path, target: IO[bytes]) -> Checked:
    """Check a create's body and write its requests a line each; params are looked at only when they are run.

    Raises
    ------
    ApiError
        The 400 that it gets.
    """
    found, seen = Checked(), set[str]()
    for i, request in enumerate(_Elements(source)):
        custom_id, params = _checked_request(i, request)
        if custom_id in seen:
            raise anthropic_common.error(400, f"requests: custom_ids must be unique, and '{custom_id}' is there twice")
        seen.add(custom_id)
        if i == ANTHROPIC_MOST:
            raise anthropic_common.error(400, f"requests: List should have at most {ANTHROPIC_MOST} items")
        found.n_rows += len(rows_of(params))
        found.n += 1
        target.write(json.dumps({"custom_id": custom_id, "params": params}, separators=(",", ":")).encode() + b"\n")
    if not found.n:
        raise anthropic_common.error(400, "requests: List should have at least 1 item")
    return found


def _checked_request(i: int, request: object) -> tuple[str, JsonObject]:
    if not isinstance(request, dict):
        raise anthropic_common.error(400, f"requests.{i}: Input should be a valid dictionary")
    for name in ("custom_id", "params"):
        if name not in request:
            raise anthropic_common.error(400, f"requests.{i}.{name}: Field required")
    for name in request:
        if name not in ("custom_id", "params"):
            raise anthropic_common.error(400, f"requests.{i}.{name}: Extra inputs are not permitted")
    custom_id, params = request["custom_id"], request["params"]
    if not isinstance(custom_id, str) or not CUSTOM_ID.fullmatch(custom_id):
        said = "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"
        raise anthropic_common.error(400, f"requests.{i}.custom_id: {said}")
    if not isinstance(params, dict):
        raise anthropic_common.error(400, f"requests.{i}.params: Input should be a valid dictionary")
    return custom_id, params


class _Elements:
    """The elements of ``{"requests": [...]}``, read from a file a block at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = json.JSONDecoder()
        self._text, self._at = "", 0

    def __iter__(self) -> Iterator[Any]:
        with self._path.open("rb") as file:
            self._file, self._utf8 = file, codecs.getincrementaldecoder("utf-8")()
            try:
                yield from self._top()
            except (ValueError, RecursionError) as error:
                raise anthropic_common.error(400, f"{NOT_JSON}: {error}") from None

    def _top(self) -> Iterator[Any]:
        self._take("{")
        has_requests, is_first = False, True
        while not self._meets("}"):
            if not is_first:
                self._take(",")
            is_first = False
            name = self._value()
            self._take(":")
            if name != "requests":
                raise anthropic_common.error(400, f"{name}: Extra inputs are not permitted")
            if not self._meets("["):
                raise anthropic_common.error(400, "requests: Input should be a valid list")
            has_requests = True
            yield from self._array()
        if self._peek():
            raise ValueError("there is something after its end")
        if not has_requests:
            raise anthropic_common.error(400, "requests: Field required")

    def _array(self) -> Iterator[Any]:
        if self._meets("]"):
            return
        while True:
            yield self._value()
            if self._meets("]"):
                return
            self._take(",")

    def _more(self) -> bool:
        """Read on; False at the end."""
        block = self._file.read(max(BLOCK, len(self._text) - self._at))
        self._text = self._text[self._at :] + self._utf8.decode(block, final=not block)
        self._at = 0
        return bool(block)

    def _peek(self) -> str:
        """Return the next character that is no space; empty at the end."""
        while True:
            found = _SPACE.match(self._text, self._at)
            self._at = found.end() if found else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _meets(self, sign: str) -> bool:
        if self._peek() != sign:
            return False
        self._at += 1
        return True

    def _take(self, sign: str) -> None:
        if not self._meets(sign):
            raise ValueError(f"expecting {sign!r}")

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except ValueError:
                if len(self._text) - self._at > LARGEST_REQUEST or not self._more():
                    raise
                continue
            if end == len(self._text) and self._more():
                continue  # a number may go on in the next block
            self._at = end
            return value
