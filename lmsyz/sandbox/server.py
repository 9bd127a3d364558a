"""The ASGI application: routes, the Host check, the way of one request, and the control endpoints."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lmsyz.sandbox import anthropic_common, openai_common
from lmsyz.sandbox.anthropic_api import AnthropicMessages
from lmsyz.sandbox.anthropic_batches import AnthropicBatches
from lmsyz.sandbox.azure import AzureChat, AzureResponses
from lmsyz.sandbox.batch_runner import Runner
from lmsyz.sandbox.batch_shelf import Shelf
from lmsyz.sandbox.claude_platforms import Bedrock, Foundry, Vertex
from lmsyz.sandbox.control import LABEL_HEADER, Control, json_response
from lmsyz.sandbox.doors import Dialect, Door
from lmsyz.sandbox.faults import Draws, Faults
from lmsyz.sandbox.gemini import GeminiChat
from lmsyz.sandbox.openai_batches import OpenAIBatches
from lmsyz.sandbox.openai_chat import OpenAIChat
from lmsyz.sandbox.openai_files import OpenAIFiles
from lmsyz.sandbox.openai_responses import OpenAIResponses
from lmsyz.sandbox.openrouter import OpenRouterChat
from lmsyz.sandbox.replies import cache_told, refusal_of, reply_to
from lmsyz.sandbox.sending import Dropped, Portal
from lmsyz.sandbox.state import State
from lmsyz.sandbox.wire import CREATED, MODELS, Api, ApiError, Ask, JsonObject

__all__ = ["APIS", "make_app"]

APIS: tuple[Api, ...] = (OpenAIChat(), OpenAIResponses(), AnthropicMessages())
DIALECTS: tuple[Dialect, ...] = (
    AzureChat(),
    AzureResponses(),
    OpenRouterChat(),
    GeminiChat(),
    Foundry(),
    Bedrock(),
    Vertex(),
)
BATCHES = (OpenAIFiles, OpenAIBatches, AnthropicBatches)
LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def make_app(state: State, token: str, stop: Callable[[], None], runner: Runner | None = None) -> ASGIApp:
    """Return the application.

    Parameters
    ----------
    state : State
        What it remembers.
    token : str
        What a control request must carry.
    stop : callable
        Ends the server.
    runner : Runner, optional
        Answers batches; without it they lie in a temporary folder.
    """
    runner = runner or Runner(Shelf(), APIS, state.fell)
    models = _Models(state)
    control = Control(state, runner, token, stop)
    routes = [
        *(Route(api.path, _Endpoint(api, state), methods=["POST"]) for api in APIS),
        *_doors(state),
        Route("/v1/messages/count_tokens", _CountTokens(state), methods=["POST"]),
        *(r for home in BATCHES for r in home(state, runner).routes()),
        Route("/v1/models", models.many, methods=["GET"]),
        Route("/v1/models/{id:path}", models.one, methods=["GET"]),
        *control.routes(),
    ]
    elsewhere = _elsewhere(state)
    handlers: dict[Any, Any] = {HTTPException: elsewhere, Exception: elsewhere}
    return _HostCheck(Starlette(routes=routes, exception_handlers=handlers))


def _doors(state: State) -> list[Route]:
    """Return the routes of the dialects, each before the endpoint that answers it."""
    behind = {api.label: _Endpoint(api, state) for api in APIS}
    return [
        Route(path, Door(dialect, behind[dialect.endpoint], state), methods=["POST"])
        for dialect in DIALECTS
        for path in dialect.routes
    ]


class _HostCheck:
    """Answers 403 to a Host that is not this machine: a web page may have had its name bound to it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            host = next((v for k, v in scope["headers"] if k == b"host"), b"").decode("latin-1")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if name.lower() not in LOCAL_HOSTS:
                body = {"error": {"message": "The sandbox answers requests to this machine only.", "type": "forbidden"}}
                await JSONResponse(body, 403, LABEL_HEADER)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _is_anthropic(headers: Mapping[str, str]) -> bool:
    return "anthropic-version" in headers or "x-api-key" in headers


class _Endpoint:
    """One model endpoint."""

    def __init__(self, api: Api, state: State) -> None:
        self.api = api
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        raw = await request.body()
        with self.state.flight():
            era = self.state.era
            response = await self.answer(raw, request.headers)
            status = 0 if isinstance(response, Dropped) else response.status_code
            if era == self.state.era:
                self.state.keep(self.api.label, self.api.path, raw, request.headers, status)
            await response(scope, receive, send)

    async def answer(self, raw: bytes, headers: Mapping[str, str]) -> Response:
        """Return the response to one request."""
        state, api = self.state, self.api
        draws = state.draws(api.path, raw)
        request_id = f"req_sandbox{draws.tag}"
        try:
            api.authorise(headers)
            ask = api.read(raw, headers)
            body, special = await self._answered(ask, draws)
        except (ApiError, RecursionError) as exc:
            error = exc if isinstance(exc, ApiError) else api.failure("nested")
            body = error.body | ({"request_id": request_id} if api.label == "messages" else {})
            return json_response(error.status, body, {**api.headers(request_id, state.limits.state()), **error.headers})
        if special is not None:
            return special
        return json_response(200, body, api.headers(request_id, state.limits.state()))

    async def _answered(self, ask: Ask, draws: Draws) -> tuple[JsonObject, Response | None]:
        state, api = self.state, self.api
        faults, seed, era = state.faults, state.seed, state.era
        self._admit(ask, faults, draws)
        if faults.latency_s or faults.latency_jitter_s:
            await asyncio.sleep(faults.latency_s + faults.latency_jitter_s * draws.uniform("latency"))
        special = self._request_fault(faults, draws)
        if special is not None:
            return {}, special
        replied = reply_to(ask, faults, draws, seed)
        if era == state.era:
            state.fell(*replied.faults)
            state.n_rows += len(replied.rows)
            state.n_unanswered += replied.n_unanswered
        outcome = cache_told(ask, replied.outcome, state.is_cached)
        state.limits.spend(outcome.output_tokens)
        return api.reply(ask, outcome, draws), None

    def _admit(self, ask: Ask, faults: Faults, draws: Draws) -> None:
        """Raise what stops a request before any work: no credit, a limit, a form or a size that is not taken."""
        state, api = self.state, self.api
        if faults.out_of_quota:
            state.fell("out_of_quota")
            raise api.failure("out_of_quota")
        stopped = state.limits.admit(ask.input_tokens)
        if stopped is not None:
            state.fell(f"{stopped[0]}_per_minute")
            raise api.failure(stopped[0], retry_after_s=math.ceil(stopped[1] * 1000) / 1000)
        if draws.falls("rate_limited", faults.rate_limited):
            state.fell("rate_limited")
            raise api.failure("requests", retry_after_s=faults.retry_after_s)
        refusal = refusal_of(api, ask, faults, state.seed)
        if refusal is not None:
            state.fell(refusal[0])
            raise refusal[1]
        if ask.form in faults.ignored_forms:
            state.fell("ignored_forms")

    def _request_fault(self, faults: Faults, draws: Draws) -> Response | None:
        """Raise or return what a request gets in place of a reply."""
        for kind in ("overloaded", "server_error", "dropped", "not_a_reply"):
            if not draws.falls(kind, getattr(faults, kind)):
                continue
            self.state.fell(kind)
            if kind == "dropped":
                return Dropped()
            if kind == "not_a_reply":
                return Portal(LABEL_HEADER)
            raise self.api.failure(kind)
        return None


class _CountTokens:
    """Anthropic's count of a request's tokens."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.api = AnthropicMessages()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        raw = await request.body()
        draws = self.state.draws("/v1/messages/count_tokens", raw)
        headers = self.api.headers(f"req_sandbox{draws.tag}", self.state.limits.state())
        try:
            self.api.authorise(request.headers)
            status, body = 200, self.api.count(raw, request.headers)
        except ApiError as error:
            status, body = error.status, error.body | {"request_id": headers["request-id"]}
        self.state.keep("count_tokens", "/v1/messages/count_tokens", raw, request.headers, status)
        await json_response(status, body, headers)(scope, receive, send)


class _Models:
    """The models endpoint, whose path both APIs share: an Anthropic request tells by its headers."""

    def __init__(self, state: State) -> None:
        self.state = state

    async def many(self, request: Request) -> Response:
        """List the models."""
        if _is_anthropic(request.headers):
            data = [anthropic_common.model_object(m, CREATED) for m in MODELS.values()]
            page = {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
            return self._answer(request, page)
        data = [openai_common.model_object(m, CREATED) for m in MODELS.values()]
        return self._answer(request, {"object": "list", "data": data})

    async def one(self, request: Request) -> Response:
        """Return one model."""
        model = MODELS.get(request.path_params["id"])
        if model is not None:
            make = anthropic_common.model_object if _is_anthropic(request.headers) else openai_common.model_object
            return self._answer(request, make(model, CREATED))
        name, known = request.path_params["id"], ", ".join(MODELS)
        if _is_anthropic(request.headers):
            return self._answer(request, anthropic_common.error(404, f"model: {name} (the sandbox has {known})"))
        said = f"The model '{name}' does not exist. The sandbox has {known}."
        return self._answer(request, openai_common.error(404, said, param="model", code="model_not_found"))

    def _answer(self, request: Request, found: JsonObject | ApiError) -> Response:
        api: Api = AnthropicMessages() if _is_anthropic(request.headers) else OpenAIChat()
        request_id = f"req_sandbox{self.state.draws(request.url.path, b'').tag}"
        headers = api.headers(request_id, self.state.limits.state())
        try:
            api.authorise(request.headers)
            if isinstance(found, ApiError):
                raise found
            status, body = 200, found
        except ApiError as error:
            status, body = error.status, error.body
        self.state.keep("models", request.url.path, b"", request.headers, status)
        return json_response(status, body, headers)


def _elsewhere(state: State) -> Callable[[Request, Exception], Awaitable[Response]]:
    """Return the handler of unknown paths, wrong methods and bugs of ours, in the words of the API that was meant."""

    async def handle(request: Request, exc: Exception) -> Response:
        status = exc.status_code if isinstance(exc, HTTPException) else 500
        method, path = request.method, request.url.path
        anthropic = _is_anthropic(request.headers) or path.startswith("/v1/messages")
        if status == 500:
            error = (AnthropicMessages() if anthropic else OpenAIChat()).failure("server_error")
        elif anthropic:
            said = "Method Not Allowed" if status == 405 else f"Not found: {method} {path}"
            error = anthropic_common.error(status, said)
        elif status == 405:
            said = f"Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)"
            error = openai_common.error(405, said, code="method_not_supported")
        else:
            said = f"Unknown request URL: {method} {path}. Please check the URL for typos."
            error = openai_common.error(status, said, code="unknown_url")
        state.keep("unknown", path, b"", request.headers, status)
        return json_response(status, error.body, {})

    return handle
