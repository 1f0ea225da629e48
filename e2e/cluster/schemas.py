"""Turns Kubernetes' OpenAPI documents into one self-contained JSON schema for each kind: KIND-VERSION.json."""

import json
import pathlib
import sys

source, target = map(pathlib.Path, sys.argv[1:])


def close(schema):
    """A field that no schema names is a mistake: an object with fields takes no others."""
    if schema.get("properties") and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    for field in schema.get("properties", {}).values():
        # A field whose value may be left empty is written as null by some tools; OpenAPI says "default" there.
        field.pop("default", None)
    return schema


for document in source.glob("api*__v*_openapi.json"):
    schemas = json.loads(document.read_text())["components"]["schemas"]
    for schema in schemas.values():
        close(schema)
    for name, schema in schemas.items():
        for kind in schema.get("x-kubernetes-group-version-kind", []):
            # Every group's document repeats the kinds of meta; a kind belongs to the document of its own group.
            group = kind["group"]
            if f"{group}__{kind['version']}_" in document.name or (not group and document.name.startswith("api__")):
                path = target / f"{kind['kind'].lower()}-{kind['version']}.json"
                path.write_text(json.dumps({"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}))
