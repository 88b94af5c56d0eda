"""The OpenAPI 3.1 document, made from the route tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from coordinator.api.fields import Since, SinceOurs, Until
from coordinator.api.openapi_at import CLOSED, FROM, OURS, UP_TO, named, number
from coordinator.api.route import V3, Resource, Route
from coordinator.api.version import HEADER, MAXIMUM

_REF = "#/components/schemas/{model}"


def document(resources: Iterable[Resource]) -> dict[str, Any]:
    """The whole document as a JSON-ready dict."""
    served = tuple(resources)
    refs, schemas = _schemas(served)
    paths: dict[str, dict[str, Any]] = {}
    for resource in served:
        for route in resource.routes:
            place = paths.setdefault(resource.full(route), {})
            made = _operation(resource, route, refs)
            before = place.get(route.method.lower())
            place[route.method.lower()] = made if before is None else _merged(before, made)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Brickyard",
            "version": f"3.{MAXIMUM}",
            "description": "Block Storage v3 and what Brickyard adds. Every path below /v3 is also served as "
            "/v3/{project_id}/..., where project_id is the one of the token.",
        },
        "tags": [{"name": resource.name, "description": resource.about} for resource in served],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"}},
        },
        "security": [{"token": []}],
    }


def _schemas(resources: tuple[Resource, ...]) -> tuple[dict[type[BaseModel], dict[str, Any]], dict[str, Any]]:
    models: dict[tuple[type[BaseModel], str], None] = {}
    for resource in resources:
        for route in resource.routes:
            for top, mode in ((route.body, "validation"), (route.answer, "serialization")):
                models |= dict.fromkeys((model, mode) for model in _inside(top))
    keys: Any = list(models)
    found, definitions = models_json_schema(keys, ref_template=_REF)
    schemas = definitions.get("$defs", {})
    for model, mode in models:
        _mark(model, _schema(model, mode, found, schemas))
    for resource in resources:
        for body in (route.body for route in resource.routes if route.body is not None):
            if body.model_config.get("extra") != "allow":
                _schema(body, "validation", found, schemas)[CLOSED] = named(body.unknown_refused_from)
    return {model: found[(model, mode)] for model, mode in models}, schemas  # type: ignore[index]


def _schema(model: type[BaseModel], mode: str, found: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = schemas.get(str(found[(model, mode)].get("$ref", "")).rpartition("/")[2], {})
    return schema


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    """A model, and all that its fields are of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _inside(field.annotation)
    for argument in get_args(annotation):
        yield from _inside(argument)


def _mark(model: type[BaseModel], schema: dict[str, Any]) -> None:
    """Write into the schema from and up to which microversion a property exists."""
    for name, field in model.model_fields.items():
        place = schema.get("properties", {}).get(field.alias or name)
        if place is None:
            continue
        for item in field.metadata:
            if isinstance(item, Since):
                place[FROM] = named(item.minor)
            elif isinstance(item, Until):
                place[UP_TO] = named(item.minor)
            elif isinstance(item, SinceOurs):
                place[OURS] = f"1.{item.minor}"


def _operation(resource: Resource, route: Route, refs: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {
        "tags": [resource.name],
        "summary": route.summary,
        "operationId": _identifier(resource, route),
        "parameters": _parameters(resource, route),
        "responses": {str(route.status): _response(route, refs), "default": {"description": "An error."}},
    }
    if route.policy is not None:
        made["x-policy"] = route.policy
    made |= _span(route)
    if route.public:
        made["security"] = []
    key = route.action or route.body_key
    if route.body is not None or route.action is not None:
        body = refs[route.body] if route.body is not None else {}
        made["requestBody"] = _content({**_wrapped(body, key), **_span(route)})
    elif route.streams and route.method != "GET":
        made["requestBody"] = {"content": {"application/octet-stream": {"schema": {}}}}
    return made


def _span(route: Route) -> dict[str, str]:
    """The marks of a call that not all microversions have."""
    found = {FROM: named(route.since)} if route.since else {}
    return found | ({UP_TO: named(route.until)} if route.until < MAXIMUM else {})


def _identifier(resource: Resource, route: Route) -> str:
    words = [
        resource.name,
        route.method.lower(),
        *route.path.strip("/").split("/"),
        route.action or "",
        str(route.since),
    ]
    return "_".join("".join(ch if ch.isalnum() else "_" for ch in word).strip("_") for word in words if word)


def _parameters(resource: Resource, route: Route) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in route.parameters
    ]
    since = {name: {FROM: named(minor)} for name, minor in route.query_since}
    found += [
        {"name": name, "in": "query", "schema": {"type": "string"}, **since.get(name, {})} for name in route.query
    ]
    if resource.prefix == V3:
        found.append({"name": HEADER, "in": "header", "schema": {"type": "string"}, "example": f"volume 3.{MAXIMUM}"})
    return found


def _response(route: Route, refs: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {"description": "Done." if route.status != 202 else "Accepted."}
    if route.answer is not None:
        made["content"] = _content({**_wrapped(refs[route.answer], route.answer_key), **_span(route)})["content"]
    return made


def _wrapped(schema: dict[str, Any], key: str | None) -> dict[str, Any]:
    if key is None:
        return dict(schema)
    return {"type": "object", "required": [key], "properties": {key: dict(schema)}}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two actions (or two version ranges) of one method and path are one operation with alternatives."""
    sides = (first, second)
    made = {**first, "responses": {**first["responses"], **second["responses"]}}
    for mark, furthest in ((FROM, min), (UP_TO, max)):
        made.pop(mark, None)
        if mark in first and mark in second:
            made[mark] = furthest(first[mark], second[mark], key=number)
    made["summary"] = f"{first['summary']} {second['summary']}"
    if (body := _either(side.get("requestBody", {}) for side in sides)) is not None:
        made["requestBody"] = body
    for status in first["responses"].keys() & second["responses"].keys():
        if (answer := _either(side["responses"][status] for side in sides)) is not None:
            made["responses"][status] = {**made["responses"][status], **answer}
    return made


def _either(places: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The content that is of any of these shapes."""
    contents = [place.get("content", {}) for place in places]
    schemas = [content["application/json"]["schema"] for content in contents if "application/json" in content]
    flat = [schema for schema_or_more in schemas for schema in schema_or_more.get("anyOf", [schema_or_more])]
    return _content({"anyOf": flat}) if flat else None
