"""Says how often each operation was answered how, and fails where one never had success.

    schemathesis_coverage.py REPORT.ndjson
"""

import collections
import json
import sys

answers = collections.defaultdict(collections.Counter)
with open(sys.argv[1], encoding="utf-8") as report:
    for line in report:
        recorder = json.loads(line).get("ScenarioFinished", {}).get("recorder", {})
        for name, exchange in recorder.get("interactions", {}).items():
            case = recorder["cases"][name]["value"]
            status = (exchange.get("response") or {}).get("status_code")
            if status is not None:
                answers[f"{case['method']} {case['path']}"][status] += 1

# schemathesis asks with methods that an operation does not have, too.
there = {name: counts for name, counts in answers.items() if set(counts) != {405}}
without = []
print("\nOperation, and how often it answered with success, and otherwise:")
for name, counts in sorted(there.items(), key=lambda item: item[0].split()[::-1]):
    success = sum(count for status, count in counts.items() if status < 300)
    others = ", ".join(f"{status}: {count}" for status, count in sorted(counts.items()) if status >= 300)
    print(f"  {name:<60} {success:>5}   {others}")
    if not success:
        without.append(name)
print(f"{len(there) - len(without)} of {len(there)} operations had success")
sys.exit("\n".join(["Never with success:", *without]) if without else 0)
