"""What only a fresh process shows, printed as JSON.

python measure_process.py memory CONTENDER
python measure_process.py first CONTENDER     time to the end of a first, tiny training
python measure_process.py large CONTENDER     20 million rows of 20 features
"""

import json
import pathlib
import re
import sys
import time

import contenders

MIB = 2**20


def memory(name: str) -> dict:
    """The peak of a training of 131,072 rows."""
    getattr(contenders, name)(contenders.Task(1024, 1, 2, 128))(2)
    return {"peak_mib": resident("VmHWM") / MIB}


def first(name: str) -> dict:
    """Build, compile and one epoch of 288 rows; imports are not counted."""
    start = time.perf_counter()
    getattr(contenders, name)(contenders.Task(32, 1, 2, 9))(1)
    return {"seconds": time.perf_counter() - start}


def large(name: str) -> dict:
    """Memory beyond the caller's arrays, over their size; rows per second."""
    make = getattr(contenders, name)
    # Else what the engine takes for itself would count.
    make(contenders.Task(8192, 1, 2, 8, features=20))(1)
    task = contenders.Task(8192, 1, 2, -(-20_000_000 // 8192), features=20)
    arrays = task.arrays()
    size = sum(array.nbytes for array in arrays)
    before = resident("VmRSS")
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    start = time.perf_counter()
    train = make(task)
    train(1)
    first_epoch = time.perf_counter() - start
    start = time.perf_counter()
    train(1)
    second_epoch = time.perf_counter() - start
    return {
        "rows": task.rows,
        "data_mib": size / MIB,
        "peak_beyond": (resident("VmHWM") - before) / size,
        "after_beyond": (resident("VmRSS") - before) / size,
        "rows_per_second_first_fit": task.rows / first_epoch,
        "rows_per_second": task.rows / second_epoch,
    }


def resident(key: str) -> int:
    """Bytes. Not `getrusage`: its peak is at least that of the parent process."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{key}:\s*(\d+)", status)[1]) * 1024


if __name__ == "__main__":
    kind, contender = sys.argv[1:]
    measure = {"memory": memory, "first": first, "large": large}[kind]
    print(json.dumps(measure(contender)))
