"""`python -m addloss_kit` does what the command `addloss-kit` does."""

import sys

from addloss_kit.cli import main

if __name__ == "__main__":
    sys.exit(main())
