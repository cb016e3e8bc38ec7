# SPDX-License-Identifier: MIT
"""What these examples share: a table of before and after."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["before_and_after"]


def before_and_after(title: str, before: str, after: str, rows: Mapping[str, tuple[float, float]]) -> None:
    """Print the changed line as it was and is, and each number under both."""
    width = max(map(len, rows)) + 2
    print(f"{title}\n  before  {before}\n  after   {after}\n\n{'':{width}}{'before':>14}{'after':>14}")
    for name, numbers in rows.items():
        print(f"{name:{width}}" + "".join(f"{x:14.6g}" for x in numbers))
