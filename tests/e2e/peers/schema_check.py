"""Holds answers against the schemas that the documents have for them.

    schema_check.py SCHEMAS FILE

Each line of the file is the name of a schema, a tab, and an answer.
"""

import json
import sys
from pathlib import Path

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

schemas, path = sys.argv[1:]
files = {file.name: json.loads(file.read_text("utf-8")) for file in Path(schemas).glob("*.json")}
# No answer: config_schema.py holds files against it.
del files["config_file.json"]
registry = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in files.items()
)
for schema in files.values():
    Draft202012Validator.check_schema(schema)
unused = set(files)
count = 0
for line in open(path, encoding="utf-8"):
    name, answer = line.rstrip("\n").split("\t")
    unused.discard(name + ".json")
    Draft202012Validator(files[name + ".json"], registry=registry).validate(json.loads(answer))
    count += 1
assert not unused, f"no answer for {unused}"
print("valid", count)
