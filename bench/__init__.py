# SPDX-License-Identifier: MIT
"""The benchmark suite: ours and its rivals on the same work, answers asserted before they are timed."""
