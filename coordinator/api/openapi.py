"""The OpenAPI 3.1 document, made from the route tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from coordinator.api.fields import Since, Until
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
            if route.body is not None:
                models[(route.body, "validation")] = None
            if route.answer is not None:
                models[(route.answer, "serialization")] = None
    keys: Any = list(models)
    found, definitions = models_json_schema(keys, ref_template=_REF)
    schemas = definitions.get("$defs", {})
    for model, mode in models:
        _mark(model, schemas.get(str(found[(model, mode)].get("$ref", "")).rpartition("/")[2], {}))  # type: ignore[index]
    return {model: found[(model, mode)] for model, mode in models}, schemas  # type: ignore[index]


def _mark(model: type[BaseModel], schema: dict[str, Any]) -> None:
    """Write into the schema from and up to which microversion a property exists."""
    for name, field in model.model_fields.items():
        place = schema.get("properties", {}).get(field.alias or name)
        if place is None:
            continue
        for item in field.metadata:
            if isinstance(item, Since):
                place["x-openstack-min-ver"] = f"3.{item.minor}"
            elif isinstance(item, Until):
                place["x-openstack-max-ver"] = f"3.{item.minor}"


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
    if route.since:
        made["x-openstack-min-ver"] = f"3.{route.since}"
    if route.until < MAXIMUM:
        made["x-openstack-max-ver"] = f"3.{route.until}"
    if route.public:
        made["security"] = []
    key = route.action or route.body_key
    if route.body is not None:
        made["requestBody"] = _content(_wrapped(refs[route.body], key))
    elif route.action is not None:
        made["requestBody"] = _content(_wrapped({}, key))
    elif route.streams and route.method != "GET":
        made["requestBody"] = {"content": {"application/octet-stream": {"schema": {}}}}
    return made


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
    found += [{"name": name, "in": "query", "schema": {"type": "string"}} for name in route.query]
    if resource.prefix == V3:
        found.append({"name": HEADER, "in": "header", "schema": {"type": "string"}, "example": f"volume 3.{MAXIMUM}"})
    return found


def _response(route: Route, refs: dict[type[BaseModel], dict[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {"description": "Done." if route.status != 202 else "Accepted."}
    if route.answer is not None:
        made["content"] = _content(_wrapped(refs[route.answer], route.answer_key))["content"]
    return made


def _wrapped(schema: dict[str, Any], key: str | None) -> dict[str, Any]:
    if key is None:
        return dict(schema)
    return {"type": "object", "required": [key], "properties": {key: dict(schema)}}


def _content(schema: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": schema}}}


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two actions (or two version ranges) of one method and path are one operation with alternatives."""
    made = {**first, "responses": {**first["responses"], **second["responses"]}}
    made["summary"] = f"{first['summary']} {second['summary']}"
    contents = [side.get("requestBody", {}).get("content", {}) for side in (first, second)]
    bodies = [content["application/json"]["schema"] for content in contents if "application/json" in content]
    flat = [schema for body in bodies for schema in body.get("anyOf", [body])]
    if flat:
        made["requestBody"] = _content({"anyOf": flat})
    return made
