# SPDX-License-Identifier: MIT
"""The command line: ``reparam demo``, ``reparam info``, ``reparam selftest``.

What a user got wrong ends with exit code 2 and one line on stderr, a failed check with 1; only a fault of this
package shows a traceback.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

import reparam as rp

from . import demo, selftest
from ._backends import native
from ._settings import current_backend, get_num_threads

__all__ = ["main", "show_config"]

OPTIONAL = ("scikit-learn", "matplotlib", "tqdm")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        one_line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {one_line}\n")


def _check_environment() -> None:
    """Settings that the library reads at its first call are the user's too."""
    try:
        current_backend()
        get_num_threads()
    except ValueError as error:
        raise demo.UsageError(str(error)) from error


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
    wanted = {name: getattr(arguments, name) for name in ("key", "epochs", "refine", "progress")}
    return demo.run(demo.Settings(out=Path(arguments.out), **wanted))


def _version_of(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def collect() -> dict[str, Any]:
    """What ``reparam info --json`` prints: versions, backends, instruction sets, threads, settings.

    Returns
    -------
    dict
    """
    core = native._core
    return {
        "reparam": rp.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "compiler": None if core is None else core.compiler,
        "backend": current_backend(),
        "backends": list(rp.backends()),
        "threads": get_num_threads(),
        "ops": len(rp.OPS),
        "extras": {name: _version_of(name) for name in OPTIONAL},
        "environment": {name: value for name, value in os.environ.items() if name.startswith("REPARAM_")},
    }


def show_config() -> None:
    """Print versions, backends, instruction sets, threads and settings."""
    for name, value in collect().items():
        if isinstance(value, dict):
            shown = ", ".join(f"{k} {'missing' if v is None else v}" for k, v in value.items()) or "none set"
        elif isinstance(value, list):
            shown = ", ".join(value)
        else:
            shown = "none" if value is None else str(value)
        print(f"{name:12}{shown}")


def _info(arguments: argparse.Namespace) -> int:
    if arguments.json:
        print(json.dumps(collect(), indent=2))
    else:
        show_config()
    return 0


def _selftest(_: argparse.Namespace) -> int:
    return selftest.run()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="reparam", description="Thousands of small Gaussians at once.")
    parser.add_argument("--version", action="version", version=f"reparam {rp.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    job = commands.add_parser("demo", help="train a VAE on handwritten digits, infer hidden halves, draw it")
    job.add_argument(
        "--out", default="reparam-demo", metavar="DIR", help="folder of what it writes (default reparam-demo)"
    )
    job.add_argument(
        "--key",
        type=_key,
        default=0,
        metavar="K",
        help="random key: the same key, the same numbers (default 0)",
    )
    job.add_argument(
        "--epochs", type=_positive, default=400, metavar="N", help="passes over the images (default 400)"
    )
    job.add_argument(
        "--refine",
        type=_positive,
        default=100,
        metavar="N",
        help="inference steps for hidden halves (default 100)",
    )
    job.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar")
    job.set_defaults(run=_demo)

    info = commands.add_parser("info", help="versions, backends, instruction sets, threads")
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(run=_info)

    test = commands.add_parser("selftest", help="golden numbers on every backend and instruction set")
    test.set_defaults(run=_selftest)
    return parser


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
    arguments = _parser().parse_args(argv)
    try:
        _check_environment()
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("reparam: interrupted", file=sys.stderr)
        return 130
    except (demo.UsageError, rp.CheckpointError, OSError) as error:
        print(f"reparam: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return code
