# SPDX-License-Identifier: MIT
"""Every error that a user of the ops sees: errors, values, calls of ops."""

from __future__ import annotations

from .calls import (
    broadcast_batches,
    check_in_place,
    check_keywords,
    check_operands,
    check_out,
    resolve_extents,
)
from .errors import CheckpointError, NotPositiveDefiniteError
from .gpu import explain, one_device, refuse_backend, require_aligned
from .values import (
    FLOATS,
    as_array,
    as_bool,
    as_choice,
    as_dtype,
    as_float,
    as_float_array,
    as_index,
    as_int,
    as_key,
    as_names,
    as_shape,
    as_weak_scalar,
    came,
    check_finite,
    dtype_error,
    is_weak,
    same_dtype,
)

__all__ = [
    "FLOATS",
    "CheckpointError",
    "NotPositiveDefiniteError",
    "as_array",
    "as_bool",
    "as_choice",
    "as_dtype",
    "as_float",
    "as_float_array",
    "as_index",
    "as_int",
    "as_key",
    "as_names",
    "as_shape",
    "as_weak_scalar",
    "broadcast_batches",
    "came",
    "check_finite",
    "check_in_place",
    "check_keywords",
    "check_operands",
    "check_out",
    "dtype_error",
    "explain",
    "is_weak",
    "one_device",
    "refuse_backend",
    "require_aligned",
    "resolve_extents",
    "same_dtype",
]
