"""The command `addloss-kit`."""

from __future__ import annotations

import argparse
import pathlib
import sys
from collections.abc import Sequence

from addloss_kit import demo
from addloss_kit._checks import check_number, check_positive_int, received
from addloss_kit._version import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: Arguments without the program name. Defaults to the process's.

    Returns:
        Exit status: 0 on success, 1 if the demo cannot run here or its check failed.
        Invalid arguments exit with 2, as in argparse.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        check_positive_int(epochs=arguments.epochs)
        check_number(low=0.0, loss_weight=arguments.loss_weight)
        check_number(low=0, high=2**32 - 1, seed=arguments.seed)
        if arguments.output.exists() and not arguments.output.is_dir():
            raise ValueError(
                "`output` must be a folder. Name a new or an existing one. "
                f"{received(output=arguments.output)}"
            )
    except ValueError as error:
        parser.error(str(error))
    missing = demo.missing_packages()
    if missing:
        print(
            "The demo needs scikit-learn and matplotlib. Install them with "
            "`pip install 'addloss_kit[demo]'` (in a clone of the repository: "
            f"`pip install '.[demo]'`). Received: no {' and no '.join(missing)}.",
            file=sys.stderr,
        )
        return 1
    is_same = demo.run_demo(
        arguments.output,
        epochs=arguments.epochs,
        seed=arguments.seed,
        loss_weight=arguments.loss_weight,
    )
    return 0 if is_same else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="addloss-kit", description="Functional add_loss for Keras 3."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="command")
    show = commands.add_parser(
        "demo",
        help="train on two tasks, compare errors, export a predictor",
        description=(
            "Trains with and without weights on noisy rows, and with and without terms "
            "by group on scikit-learn's digits; compares on held-out rows. Under a "
            "minute."
        ),
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    show.add_argument(
        "--output",
        type=pathlib.Path,
        default=pathlib.Path("addloss-kit-demo"),
        metavar="DIR",
        help="folder for the plot and the exported predictor",
    )
    show.add_argument(
        "--epochs", type=int, default=demo.EPOCHS, help="passes over the training rows"
    )
    show.add_argument(
        "--seed",
        type=int,
        default=demo.SEED,
        help="seed of the data, the initial weights and the shuffling",
    )
    show.add_argument(
        "--loss-weight",
        type=float,
        default=demo.LOSS_WEIGHT,
        help="factor of the gap in the loss of `GroupGap`",
    )
    return parser
