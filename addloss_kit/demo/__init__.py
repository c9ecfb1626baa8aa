"""The demo: the kit on two tasks, in one command."""

from addloss_kit.demo.run import EPOCHS as EPOCHS
from addloss_kit.demo.run import LOSS_WEIGHT as LOSS_WEIGHT
from addloss_kit.demo.run import SEED as SEED
from addloss_kit.demo.run import missing_packages as missing_packages
from addloss_kit.demo.run import run_demo as run_demo

__all__ = ["EPOCHS", "LOSS_WEIGHT", "SEED", "missing_packages", "run_demo"]
