"""Every error in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from peftlab.errors import PeftlabError
from peftlab.serve.errors import (
    Closed,
    Failed,
    PromptTooLong,
    QueueFull,
    RefusedAdapter,
    UnknownAdapter,
)

_LONGEST = 200  # characters of a value that is shown again
_INVALID = "invalid_request_error"


class ErrorFacts(BaseModel):
    """What went wrong.

    Attributes:
        param: the field of the request. code: for programs.
    """

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer that is an error."""

    error: ErrorFacts


class HttpError(Exception):
    """An error with its status."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = _INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        self.facts = ErrorFacts(message=message, type=kind, param=param, code=code)

    def body(self) -> bytes:
        """As JSON; escaped, since a message may quote text that is no Unicode."""
        return json.dumps({"error": self.facts.model_dump()}).encode()

    def response(self) -> Response:
        """As an answer."""
        return Response(self.body(), self.status, self.headers, "application/json")


def too_many(message: str, retry_after: int) -> HttpError:
    """429: the same request can be made again in so many seconds."""
    return HttpError(
        429,
        message,
        kind="rate_limit_error",
        code="rate_limit_exceeded",
        headers={"Retry-After": str(retry_after)},
    )


def from_engine(error: Exception, retry_after: int) -> HttpError:
    """The status and shape of what the engine, its library or this package raises."""
    text = str(error)
    match error:
        case HttpError():
            return error
        case UnknownAdapter():
            return HttpError(404, text, param="model", code="model_not_found")
        case RefusedAdapter():
            return HttpError(400, text, param="model", code="adapter_refused")
        case PromptTooLong():
            return HttpError(400, text, code="context_length_exceeded")
        case QueueFull():
            return too_many(text, retry_after)
        case Closed():
            headers = {"Retry-After": str(retry_after)}
            return HttpError(503, text, kind="server_error", code="closing", headers=headers)
        case Failed():
            return HttpError(500, text, kind="server_error", code="failed")
        case PeftlabError():
            return HttpError(400, text)
    return HttpError(500, "the server failed; its log says why", kind="server_error")


def from_validation(errors: Sequence[Any]) -> HttpError:
    """The first thing that is wrong with a request, in words."""
    first = errors[0]
    place = [str(part) for part in first["loc"]]
    param = ".".join([*place[1:], *filter(None, [first.get("ctx", {}).get("field")])]) or None
    match first["type"]:
        case "json_invalid":
            said = f"the body is no JSON: {first['ctx']['error']} at character {place[-1]}"
            return HttpError(400, said, code="invalid_json")
        case _ if len(place) == 1 and param is None:
            said = "a JSON object was expected as the body, under Content-Type: application/json"
        case "unserved_field":
            said = first["msg"]
        case "missing":
            said = f"{param} is missing"
        case _:
            said = f"{param}: {first['msg'].removeprefix('Value error, ')}, got {_shown(first)}"
    return HttpError(400, said, param=param)


def _shown(error: Mapping[str, Any]) -> str:
    text = repr(error["input"])
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def install(app: FastAPI) -> None:
    """Let the app answer errors like this."""
    app.add_exception_handler(HttpError, _of_engine)
    app.add_exception_handler(PeftlabError, _of_engine)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(Exception, _of_engine)


async def _of_engine(http: Request, error: Exception) -> Response:
    return from_engine(error, http.app.state.served.retry_after()).response()


async def _of_validation(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return from_validation(error.errors()).response()


async def _of_http(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {
        404: f"there is nothing at {http.url.path[:_LONGEST]}",
        405: f"{http.method} is not possible at {http.url.path[:_LONGEST]}",
    }.get(error.status_code, str(error.detail))
    if error.__cause__ is not None and error.status_code == 400:
        said = f"the body cannot be read: {error.__cause__}"
    return HttpError(error.status_code, said, headers=error.headers).response()
