"""Says of each TOML file of a folder what the schema of CONFIG_FILE makes of it.

    config_schema.py SCHEMA FOLDER
"""

import json
import sys
import tomllib
from pathlib import Path

from jsonschema import Draft202012Validator

schema, folder = sys.argv[1:]
schema = json.loads(Path(schema).read_text("utf-8"))
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema)
for file in sorted(Path(folder).glob("*.toml")):
    try:
        document = tomllib.loads(file.read_text("utf-8"))
    except tomllib.TOMLDecodeError:
        print(file.stem, "is no TOML")
        continue
    print(file.stem, "is valid" if validator.is_valid(document) else "is not valid")
