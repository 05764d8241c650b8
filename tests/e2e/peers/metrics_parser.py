"""Reads a scrape (a file, in the form that is named) by Prometheus' own parsers, and tells what it found as JSON.

    metrics_parser.py openmetrics|prometheus FILE
"""

import json
import sys

from prometheus_client import parser as prometheus
from prometheus_client.openmetrics import parser as openmetrics

form, path = sys.argv[1:]
text = open(path, encoding="utf-8").read()
parse = {"openmetrics": openmetrics, "prometheus": prometheus}[form].text_string_to_metric_families


def exemplar(sample):
    if sample.exemplar is None:
        return None
    labels, value, timestamp = sample.exemplar
    return {"labels": labels, "value": value, "timestamp": float(timestamp)}


families = [
    {
        "name": family.name,
        "type": family.type,
        "unit": family.unit,
        "help": family.documentation,
        "samples": [
            {
                "name": sample.name,
                "labels": sample.labels,
                "value": sample.value,
                "exemplar": exemplar(sample),
            }
            for sample in family.samples
        ],
    }
    for family in parse(text)
]
print("families", json.dumps(families))
