# SPDX-License-Identifier: MIT
"""``python -m reparam`` is ``reparam``."""

import sys

from reparam.cli import main

if __name__ == "__main__":
    sys.exit(main())
