"""Reads a scrape from standard input with Prometheus's own parser, and writes it as JSON.

Each sample is [name, labels, value]; each family has its type and its help.
"""

import json
import sys

from prometheus_client.openmetrics.parser import text_fd_to_metric_families

families = [
    {
        "name": family.name,
        "type": family.type,
        "help": family.documentation,
        "unit": family.unit,
        "samples": [[one.name, one.labels, one.value] for one in family.samples],
    }
    for family in text_fd_to_metric_families(sys.stdin)
]
json.dump(families, sys.stdout)
