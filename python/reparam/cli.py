# SPDX-License-Identifier: MIT
"""The command line: ``reparam demo``, ``reparam info``, ``reparam selftest``.

What a user got wrong ends with exit code 2 and one line on stderr; a failed check with 1; only a fault of this package
shows a traceback.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from . import __version__

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        one_line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {one_line}\n")


def _key(text: str) -> int:
    try:
        key = int(text, 0)
    except ValueError:
        key = -1
    if not 0 <= key < 2**64:
        raise argparse.ArgumentTypeError(f"expected an integer in [0, 2**64), got {text!r}")
    return key


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return number


def _demo(arguments: argparse.Namespace) -> int:
    from . import demo  # noqa: PLC0415  (each command imports what it needs)

    settings = demo.Settings(
        out=Path(arguments.out),
        key=arguments.key,
        epochs=arguments.epochs,
        refine=arguments.refine,
        progress=arguments.progress,
    )
    return demo.run(settings)


def _info(arguments: argparse.Namespace) -> int:
    from .info import collect, report  # noqa: PLC0415

    facts = collect()
    print(json.dumps(facts, indent=2) if arguments.json else report(facts))
    return 0


def _selftest(_: argparse.Namespace) -> int:
    from .selftest import run  # noqa: PLC0415

    return run()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="reparam", description="Thousands of small Gaussians at once.")
    parser.add_argument("--version", action="version", version=f"reparam {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    demo = commands.add_parser(
        "demo",
        help="train a VAE on handwritten digits, infer their hidden halves, draw the result",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument("--out", default="reparam-demo", metavar="DIR", help="folder for checkpoints, summary and figure")
    demo.add_argument("--key", type=_key, default=0, metavar="K", help="random key: the same key, the same numbers")
    demo.add_argument("--epochs", type=_positive, default=400, metavar="N", help="passes over the training images")
    demo.add_argument("--refine", type=_positive, default=400, metavar="N", help="inference steps per half-hidden image")
    demo.add_argument("--progress", action=argparse.BooleanOptionalAction, default=True, help="show a progress bar")
    demo.set_defaults(run=_demo)

    info = commands.add_parser("info", help="versions, backends, instruction sets, threads")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(run=_info)

    selftest = commands.add_parser("selftest", help="golden numbers on every backend and instruction set")
    selftest.set_defaults(run=_selftest)
    return parser


def _user_errors() -> tuple[type[BaseException], ...]:
    from . import CheckpointError  # noqa: PLC0415
    from .demo import UsageError  # noqa: PLC0415

    return UsageError, CheckpointError, OSError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        0 for success, 1 for a failed check, 2 for a user's error.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("reparam: interrupted", file=sys.stderr)
        return 130
    except _user_errors() as error:
        message = " ".join(str(error).split())
        print(f"reparam: error: {message}", file=sys.stderr)
        return 2
    return code
