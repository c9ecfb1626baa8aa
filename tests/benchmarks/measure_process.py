"""What only a fresh process shows, printed as JSON: memory, or the time to the first step.

python measure_process.py CONTENDER BATCH OUTPUTS GROUPS STEPS
"""

import json
import resource
import sys
import time

import contenders

if __name__ == "__main__":
    name, *sizes = sys.argv[1:]
    task = contenders.Task(*map(int, sizes))
    train = getattr(contenders, name)(task)
    start = time.perf_counter()
    train(1)
    first = time.perf_counter() - start
    start = time.perf_counter()
    train(1)
    second = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
    print(json.dumps({"compile_s": first - second, "peak_mib": peak / 1024}))
