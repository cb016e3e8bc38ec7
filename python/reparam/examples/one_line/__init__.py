# SPDX-License-Identifier: MIT
"""Programs of other frameworks in which one line is changed: each prints what it was before and after."""
