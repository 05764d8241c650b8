"""Parses PromQL (a file, one query a line), and tells what each selects, with the labels that it names, as JSON.

    promql.py FILE
"""

import json
import sys

import promql_parser as promql


OPERATORS = {"MatchOp.Equal": "=", "MatchOp.NotEqual": "!=", "MatchOp.Re": "=~", "MatchOp.NotRe": "!~"}


def selectors(query):
    found = []

    def visit(node):
        selector = getattr(node, "vector_selector", node)
        if isinstance(selector, promql.VectorSelector):
            matchers = selector.matchers.matchers
            text = ",".join(f"{one.name}{OPERATORS[str(one.op)]}{json.dumps(one.value)}" for one in matchers)
            found.append(
                {
                    "metric": selector.name,
                    "labels": [one.name for one in matchers],
                    "text": f"{selector.name}{{{text}}}",
                }
            )
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            labels.update(node.modifier.labels)

    labels = set()
    promql.walk(promql.parse(query), visit)
    return {"selectors": found, "grouped_by": sorted(labels)}


with open(sys.argv[1], encoding="utf-8") as file:
    print("parsed", json.dumps([selectors(query) for query in file.read().splitlines()]))
