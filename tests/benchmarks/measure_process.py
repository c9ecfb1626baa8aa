"""What only a fresh process shows, printed as JSON: memory, or the time to the first step.

python measure_process.py CONTENDER BATCH OUTPUTS GROUPS STEPS
"""

import json
import pathlib
import re
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
    # Not `getrusage`: its peak is at least that of the process that started this one.
    status = pathlib.Path("/proc/self/status").read_text()
    peak_kib = int(re.search(r"VmHWM:\s*(\d+)", status)[1])
    print(json.dumps({"compile_s": first - second, "peak_mib": peak_kib / 1024}))
