"""Trains as docs/scaling shows, but process 1 is killed once, after the first epoch.

    python tests/workers/train_and_lose_one.py FOLDER [ray]

With docs/scaling on the path. Without `ray` it is one of several processes, which are
told by the environment who they are. It prints what the script of the page prints, and
writes the epochs that began to `epochs.txt` in FOLDER.
"""

import json
import os
import pathlib
import signal
import sys
import time


def killer(folder):
    import keras

    class KilledOnce(keras.callbacks.Callback):
        """Kills process 1 at the end of an epoch, unless it has done so before."""

        def on_epoch_begin(self, epoch, logs=None):
            import jax

            if jax.process_index() == 0:
                with open(folder / "epochs.txt", "a") as file:
                    file.write(f"{epoch}\n")

        def on_epoch_end(self, epoch, logs=None):
            import jax

            if jax.process_index() == 1 and not (folder / "killed").exists():
                while not (folder / "training.ckpt").exists():
                    time.sleep(0.01)
                (folder / "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)

    return KilledOnce()


def main(folder, engine=None):
    callbacks = [killer(pathlib.Path(folder))]
    if engine == "ray":
        import on_ray
        import ray

        ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR")
        return on_ray.run(folder, callbacks=callbacks)
    import keras
    import several_processes

    keras.distribution.initialize()
    return several_processes.train(folder, callbacks=callbacks)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
