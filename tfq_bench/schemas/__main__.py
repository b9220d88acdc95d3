"""Writes the schemas that the code declares: records, baselines and suites."""

import json
from pathlib import Path

from tfq_bench.plan import suite_format
from tfq_bench.store import baseline, record_json

if __name__ == "__main__":
    for name, module in (("record", record_json), ("baseline", baseline), ("suite", suite_format)):
        path = Path(__file__).with_name(f"{name}.schema.json")
        path.write_text(json.dumps(module.json_schema(), indent=2) + "\n", "utf-8")
