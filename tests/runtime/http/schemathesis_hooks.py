"""Hooks for schemathesis, which add to the document of this server: the names of the models, and one more check."""

from typing import Any

import schemathesis

from tests.properties.test_document_properties import BEYOND


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Name a model that is served, where one is named: no document has the names."""
    path = context.operation.path if context.operation is not None else ""
    if isinstance(body, dict) and isinstance(body.get("model"), str) and body["model"]:
        return body | {"model": "v" if "embed" in path else "m"}
    return body


@schemathesis.check
def valid_bodies_are_taken(_context: Any, response: Any, case: "schemathesis.Case[Any]") -> None:
    """What fits the document is refused only for what no schema can express."""
    generated = case.meta.generation if case.meta is not None else None
    if generated is not None and generated.mode.is_positive and response.status_code == 400:
        assert BEYOND.search(response.text), response.text
