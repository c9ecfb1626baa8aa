"""Trains the model of several_processes.py on Ray actors, one process each.

    pip install 'addloss_kit[parquet,ray]' jax
    python several_processes.py write FOLDER
    python on_ray.py FOLDER

`ray.init()` starts Ray on this machine; in a cluster, start the script as a job there, with
both files as its `working_dir` and FOLDER on a disk that all machines see.
"""

import json
import os
import pathlib
import socket
import sys

import ray


@ray.remote(num_cpus=1)
class Worker:
    """One process of the training."""

    def address(self):
        """Where this machine can be reached, with a port that is free."""
        with socket.socket() as free:
            free.bind(("", 0))
            return f"{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def train(self, address, processes, process, folder, callbacks):
        os.environ["KERAS_BACKEND"] = "jax"  # before the first import of Keras
        import keras
        import several_processes

        keras.distribution.initialize(address, processes, process)
        return several_processes.train(folder, callbacks=callbacks)


def run(folder, processes=2, restarts=3, callbacks=()):
    """The errors over all rows at the end.

    A training that breaks is started again from its checkpoint, up to `restarts` times.
    """
    folder = str(pathlib.Path(folder).resolve())
    for attempt in range(restarts + 1):
        # All of them anew: what is left of a broken group waits for the dead.
        workers = [Worker.remote() for _ in range(processes)]
        try:
            address = ray.get(workers[0].address.remote())
            running = [
                worker.train.remote(address, processes, process, folder, callbacks)
                for process, worker in enumerate(workers)
            ]
            results = []
            while running:  # the first that ends, with a result or an error
                done, running = ray.wait(running)
                results += ray.get(done)
            return results[0]
        except ray.exceptions.RayError as error:
            if attempt == restarts:
                raise
            print(f"Restarted from the last checkpoint: {error!r}", file=sys.stderr)
        finally:
            for worker in workers:
                ray.kill(worker)


if __name__ == "__main__":
    ray.init()
    print(json.dumps(run(sys.argv[1])))
