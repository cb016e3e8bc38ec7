# SPDX-License-Identifier: MIT
"""Backends: each runs one pass of an op on operands that the dispatch has checked and allocated."""
