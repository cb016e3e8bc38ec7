# SPDX-License-Identifier: MIT
"""The command line: ``reparam demo``, ``reparam info``, ``reparam selftest``, ``reparam bench``.

What a user got wrong ends with exit code 2 and one line on stderr, a failed check with 1; only a fault of this
package shows a traceback.
"""

import argparse
import importlib
import importlib.metadata
import io
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
from ._backends import cuda, native
from ._settings import current_backend, get_num_threads

__all__ = ["main", "show_config"]

SETTINGS = ("REPARAM_BACKEND", "REPARAM_ISA", "REPARAM_NUM_THREADS")
OPTIONAL = ("scikit-learn", "matplotlib", "tqdm")
#: What the demo's summary says of where it ran: nothing that names a folder or a host.
ABOUT = ("reparam", "python", "numpy", "extras", "platform", "compiler", "backend", "threads")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        one_line = " ".join(message.split())
        self.exit(2, f"{self.prog}: error: {one_line}\n")


def _check_environment() -> None:
    """Settings of the environment are the user's too, also those that this command would not read."""
    try:
        current_backend()
        get_num_threads()
        if native.available():
            with rp.backend("native"):  # reads REPARAM_ISA
                pass
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


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("expected a folder, got ''")
    return Path(text)


def _demo(arguments: argparse.Namespace) -> int:
    wanted = {name: getattr(arguments, name) for name in ("out", "key", "epochs", "refine", "progress")}
    about = collect()
    return demo.run(demo.Settings(**wanted), {name: about[name] for name in ABOUT})


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
    return {
        "reparam": rp.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "compiler": native.compiler(),
        "backend": current_backend(),
        "backends": list(rp.backends()),
        "threads": get_num_threads(),
        "gpu": cuda.describe(),
        "ops": {op.name: op.signature for op in rp.OPS.values()},
        "extras": {name: _version_of(name) for name in OPTIONAL},
        "environment": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }


def show_config() -> None:
    """Print versions, backends, instruction sets, threads and settings, as the command ``reparam info`` does."""
    config = collect()
    for name, value in {**config, "ops": len(config["ops"])}.items():
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


def _selftest(arguments: argparse.Namespace) -> int:
    if not arguments.full:
        return selftest.run()
    from .selftest import report  # noqa: PLC0415  no other command needs it

    return report.run()


def _bench(arguments: argparse.Namespace) -> int:
    # The suite is installed from a folder of its own, bench/, and no other command needs it.
    command = importlib.import_module("._bench.command", __package__)
    names = {name: tuple(getattr(arguments, name)) for name in ("op", "rival", "size")}
    settings = command.Settings(quick=arguments.quick, out=arguments.out, compare=arguments.compare, **names)
    code: int = command.run(settings)
    return code


def _parser() -> argparse.ArgumentParser:
    exact: dict[str, Any] = {"allow_abbrev": False}
    parser = _Parser(prog="reparam", description="Thousands of small Gaussians at once.", **exact)
    parser.add_argument("--version", action="version", version=f"reparam {rp.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    job = commands.add_parser("demo", help="train a VAE on handwritten digits, infer hidden halves, draw it", **exact)
    job.add_argument(
        "--out",
        type=_folder,
        default="reparam-demo",
        metavar="DIR",
        help="folder of what it writes, replacing what an earlier run wrote (default %(default)s)",
    )
    job.add_argument(
        "--key",
        type=_key,
        default=demo.Settings.key,
        metavar="K",
        help="random key, the same key gives the same numbers (default %(default)s)",
    )
    job.add_argument(
        "--epochs",
        type=_positive,
        default=demo.Settings.epochs,
        metavar="N",
        help="passes over the images (default %(default)s)",
    )
    job.add_argument(
        "--refine",
        type=_positive,
        default=demo.Settings.refine,
        metavar="N",
        help="inference steps for the hidden halves (default %(default)s)",
    )
    job.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar")
    job.set_defaults(run=_demo)

    info = commands.add_parser("info", help="versions, backends, instruction sets, threads", **exact)
    info.add_argument("--json", action="store_true", help="as JSON")
    info.set_defaults(run=_info)

    test = commands.add_parser("selftest", help="golden numbers on every instruction set, in seconds", **exact)
    test.add_argument(
        "--full", action="store_true", help="the accuracy of each op on every backend beside its limit, in minutes"
    )
    test.set_defaults(run=_selftest)

    bench = commands.add_parser("bench", help="every kernel beside its rivals and this machine's limits", **exact)
    bench.add_argument("--quick", action="store_true", help="a few rows of each kind, in under 3 minutes")
    chosen: dict[str, Any] = {"action": "append", "default": []}
    again = "an unknown one lists all; may be given again"
    bench.add_argument("--op", metavar="NAME", help=f"only rows of this op; {again}", **chosen)
    bench.add_argument("--rival", metavar="NAME", help=f"only this rival; {again}", **chosen)
    bench.add_argument(
        "--size", metavar="TEXT", help=f"only sizes with these words, such as 'd=8 R'; {again}", **chosen
    )
    bench.add_argument(
        "--out",
        type=_folder,
        default="reparam-bench",
        metavar="DIR",
        help="folder of what it writes, replacing what an earlier run wrote (default %(default)s)",
    )
    bench.add_argument("--compare", type=Path, metavar="OLD.json", help="our times beside those of an earlier run")
    bench.set_defaults(run=_bench)
    return parser


def _run(argv: Sequence[str] | None) -> int:
    try:
        arguments = _parser().parse_args(argv)
    except SystemExit as leaving:  # help, the version, or a usage error that has been told
        return int(leaving.code or 0)
    _check_environment()
    code: int = arguments.run(arguments)
    return code


def _abandon_output() -> None:
    """Send what stdout still holds nowhere, if it cannot be written: Python would try again at exit, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments, ``sys.argv[1:]`` by default.

    Returns
    -------
    int
        0 for success, 1 for a failed check, 2 for a user's error, 130 after Ctrl-C.
    """
    if sys.stdout is None:  # closed before we came
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  (stays open as long as the process)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a folder's name may be no text
    try:
        code = _run(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, such as `head`, has left
        _abandon_output()
        return 1
    except KeyboardInterrupt:
        print("reparam: interrupted", file=sys.stderr)
        return 130
    except (demo.UsageError, rp.CheckpointError, OSError) as error:
        print(f"reparam: error: {' '.join(str(error).split())}", file=sys.stderr)
        _abandon_output()
        return 2
    return code
