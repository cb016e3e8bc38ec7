# SPDX-License-Identifier: MIT
"""The lecture note's examples: ``python -m reparam.examples.NAME [--out FOLDER]`` prints numbers beside the exact ones.

With ``--out`` and matplotlib, NAME.png goes into the folder. Each module has ``main(argv=None)``, which returns the
numbers.
"""
