"""Every answer that tests get from a server is one that `/openapi.json` allows."""

from __future__ import annotations

import functools
import json
from typing import Any, TypeVar
from urllib.parse import urlsplit

import jsonschema_rs
import msgspec

from htlease_server.api import routes
from htlease_server.api.schema.openapi import openapi_document
from htlease_server.api.schema.response_schemas import ANSWERS, REF

_T = TypeVar("_T")


def conforming(call: str, document: _T) -> _T:
    """Return the document of a call once it is known to be as published."""
    _check(ANSWERS[call].__name__, msgspec.to_builtins(document))
    return document


def check_answer(method: str, url: str, status: int, body: bytes) -> None:
    """Fail unless an answer of a server, or of an agent in front of it, is as published."""
    found = routes.find(urlsplit(url).path.encode())
    route = found and found.methods.get(method.encode())
    if route is None:  # the document tells nothing of it
        return
    if status != 200:
        _check("Problem", json.loads(body))
    elif route.name in ANSWERS:
        _check(ANSWERS[route.name].__name__, json.loads(body))


def _check(component: str, document: Any) -> None:
    problem = next(_validator(component).iter_errors(document), None)
    assert problem is None, f"not as {component} is published: {problem}"


@functools.cache
def _validator(component: str) -> jsonschema_rs.Draft202012Validator:
    published = {"components": openapi_document()["components"], "$ref": REF.format(name=component)}
    return jsonschema_rs.Draft202012Validator(published, validate_formats=True)
