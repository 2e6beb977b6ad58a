"""A blueprint of flask-smorest whose routes declare their terms, and whose document says all that they answer."""

from collections.abc import Callable
from copy import deepcopy
from functools import cache, wraps
from typing import Any

import flask_smorest  # type: ignore[import-untyped]  # ships no types
from flask import Response
from marshmallow import Schema as MarshmallowSchema

from gateway import answers, paging
from gateway.openapi import operation_of
from gateway.parsing import StrictParser
from gateway.schemas import fields
from gateway.schemas.base import Schema
from gateway.terms import View, declare, terms_of

API_PREFIX = "/api/v1"
_TERMS_DOC = "terms"
_OPERATION_ID = "operation_id"

Shape = type[MarshmallowSchema] | MarshmallowSchema | dict[str, Any] | None


class Blueprint(flask_smorest.Blueprint):  # type: ignore[misc]
    """The routes of one noun, below `/api/v1` unless it says otherwise."""

    ARGUMENTS_PARSER = StrictParser()

    def __init__(self, name: str, import_name: str, *, description: str, url_prefix: str = API_PREFIX) -> None:
        super().__init__(name, import_name, description=description, url_prefix=url_prefix)
        self._prepare_doc_cbks.append(_prepare_terms_doc)

    def get(self, rule: str) -> Callable[[View], View]:
        """Route GET requests to the view below."""
        return self._verb("GET", rule)

    def post(self, rule: str) -> Callable[[View], View]:
        """Route POST requests to the view below."""
        return self._verb("POST", rule)

    def put(self, rule: str) -> Callable[[View], View]:
        """Route PUT requests to the view below."""
        return self._verb("PUT", rule)

    def patch(self, rule: str) -> Callable[[View], View]:
        """Route PATCH requests to the view below."""
        return self._verb("PATCH", rule)

    def delete(self, rule: str) -> Callable[[View], View]:
        """Route DELETE requests to the view below."""
        return self._verb("DELETE", rule)

    def _verb(self, method: str, rule: str) -> Callable[[View], View]:
        def decorator(view: View) -> View:
            terms = terms_of(view)
            if not terms.is_declared:
                raise TypeError(f"{method} {rule} declares none of @needs, @signed_in and @public")
            document = view.__dict__["_apidoc"] = deepcopy(getattr(view, "_apidoc", {}))
            document[_TERMS_DOC] = terms
            document[_OPERATION_ID] = f"{self.name}.{view.__name__}"
            self.route(rule, methods=[method])(view)
            return view

        return decorator

    def arguments(
        self, schema: type[MarshmallowSchema] | MarshmallowSchema, *, location: str = "json", **kwargs: Any
    ) -> Callable[[View], View]:
        """Read the body, or with `location="query"` the query, by a schema; the view gets it as its first argument."""
        # An instance: of a class, webargs would make one for each request, and copy every field.
        once = schema() if isinstance(schema, type) else schema
        if location == "query" and isinstance(once, Schema):
            once.is_of_query = True
        read = super().arguments(once, location=location, **kwargs)

        def decorator(view: View) -> View:
            decorated: View = read(view)
            return declare(decorated, takes_body=True) if location in ("json", "files", "form") else decorated

        return decorator

    def response(self, status_code: int, schema: Shape = None, **kwargs: Any) -> Callable[[View], View]:
        """Answer what the view returns with this status, cut to what the schema publishes.

        schema: a plain OpenAPI schema describes what is not JSON.
        """
        pick = answers.pick_of(schema() if isinstance(schema, type) else schema)
        document = super().response(status_code, schema, **kwargs)

        def decorator(view: View) -> View:
            @wraps(view)
            def answered(*args: Any, **kwargs: Any) -> Response:
                result = view(*args, **kwargs)
                if isinstance(result, Response):
                    return result
                if status_code == 204:
                    return Response(status=204)
                return answers.json_response(pick(result), status_code)

            return document(answered)  # type: ignore[no-any-return]

        return decorator

    def alt_response(self, status_code: int, *, schema: Shape = None, **kwargs: Any) -> Callable[[View], View]:
        """Document another answer that the view may give."""
        document: Callable[[View], View] = super().alt_response(status_code, schema=schema, **kwargs)
        return document

    def listing(self, item: type[Schema]) -> Callable[[View], View]:
        """Answer the `paging.listing` that the view returns: a page as JSON, or all rows as CSV."""
        columns = list(item().dump_fields)
        pick = answers.pick_of(item())
        document_json = super().response(200, _page_schema(item))
        document_csv = self.alt_response(200, schema={"type": "string"}, content_type="text/csv", success=True)

        def decorator(view: View) -> View:
            @wraps(view)
            def answered(*args: Any, **kwargs: Any) -> Response:
                return paging.respond(view(*args, **kwargs), columns=columns, pick=pick, name=self.name)

            return document_json(document_csv(answered))  # type: ignore[no-any-return]

        return decorator


@cache
def _page_schema(item: type[Schema]) -> type[MarshmallowSchema]:
    """Return the page of an item: the same for every list of it, so that the document has one name for it."""
    return Schema.from_dict(
        {
            "items": fields.List(fields.Nested(item), required=True),
            "next_cursor": fields.Text(required=True, allow_none=True),
        },
        name=f"{item.__name__.removesuffix('Schema')}PageSchema",
    )


def _prepare_terms_doc(document: dict[str, Any], facts: dict[str, Any], *, method: str, **_: Any) -> dict[str, Any]:
    document["operationId"] = facts[_OPERATION_ID]
    return operation_of(document, facts[_TERMS_DOC], method)
