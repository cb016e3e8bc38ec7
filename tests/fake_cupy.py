# SPDX-License-Identifier: MIT
"""A stand-in for CuPy and for the kernels of GPUs, on a machine without one.

Arrays lie in the host's memory, but behave as CuPy's do where that differs from NumPy's: no implicit conversion, no
mixing with NumPy's arrays or with those of a device that is not the current one, no flag for writing, results of no
dims that are arrays, and names that CuPy has. It counts what a GPU would have to do: launches of CuPy's own kernels, of
ours, uploads, and the times that the host waits. The kernels walk addresses and strides as they are given, inside
memory that is allocated on their device, and run the scalar kernels of the CPU there, which are those of a GPU's
thread.
"""

import contextlib
import sys
import types
import weakref
from collections import Counter

import numpy as np

from reparam import _core
from reparam._backends import cuda as backend
from reparam._op import OPS

counts = Counter()  # launches, kernels, uploads, waits
calls = []  # of our kernels: name, device, stream, bytes of scratch
_memory = {}  # id of the array that owns it: (first address, end, device)
_current = {"device": 0}
_streams = {0: {0: 0, 1: 0}}  # by address: whose it is; the null stream is anyone's


def _words(text):
    return text.split()


UFUNCS = _words(
    "abs absolute add equal exp expm1 floor greater greater_equal hypot isfinite isinf isnan less less_equal log log1p "
    "logaddexp logical_and logical_not logical_or maximum minimum multiply negative not_equal power reciprocal sign "
    "sqrt square subtract tanh true_divide divide matmul bitwise_and bitwise_or bitwise_xor invert floor_divide "
    "left_shift right_shift remainder positive logical_xor"
)
FUNCTIONS = _words(
    "all any argmax argmin argsort argwhere broadcast_arrays broadcast_to clip concatenate copyto count_nonzero cumsum "
    "diagonal dot einsum empty_like expand_dims flatnonzero full_like max maximum mean min moveaxis ndim nonzero "
    "ones_like prod ravel repeat reshape searchsorted shape size sort split squeeze stack std sum swapaxes take "
    "take_along_axis tensordot transpose tril triu unique var where zeros_like"
)
WAITING = {"argwhere", "flatnonzero", "nonzero", "unique"}  # whose results have a shape that the data decide
VIEWS = {"broadcast_to", "moveaxis", "reshape", "squeeze", "swapaxes", "transpose", "view"}  # on any device
REDUCTIONS = {"all", "any", "argmax", "argmin", "cumsum", "max", "mean", "min", "prod", "std", "sum", "var"}
METHODS = _words(
    "all any argmax argmin argsort astype clip copy cumsum diagonal dot fill max mean min nonzero prod ravel repeat "
    "reshape round searchsorted sort squeeze std sum swapaxes take transpose var view"
)


class OutOfMemoryError(MemoryError):
    pass


class Device:
    compute_capability = "90"

    def __init__(self, number=None):
        self.id = _current["device"] if number is None else number
        self._before = []

    def __enter__(self):
        self._before.append(_current["device"])
        _current["device"] = self.id
        return self

    def __exit__(self, *_):
        _current["device"] = self._before.pop()

    def __eq__(self, other):
        return isinstance(other, Device) and self.id == other.id

    def __hash__(self):
        return self.id

    def __repr__(self):
        return f"<CUDA Device {self.id}>"


_used = {0: [], 1: []}  # streams that were made current, by device


class Stream:
    captures = False

    def __init__(self, ptr=None, device_id=None):
        self.device_id = _current["device"] if device_id is None else device_id
        self.ptr = 4096 + 16 * len(_streams) if ptr is None else ptr
        _streams[self.ptr] = {self.device_id: 0}

    @classmethod
    def from_external(cls, other):
        return cls(other.__cuda_stream__()[1])

    def __cuda_stream__(self):
        return 0, self.ptr

    def is_capturing(self):
        return self.captures

    def __enter__(self):
        if self.device_id != _current["device"]:
            raise RuntimeError("The device that the stream is created on does not match with the current device")
        _used[self.device_id].append(self)
        return self

    def __exit__(self, *_):
        _used[self.device_id].pop()


class _Null(Stream):
    def __init__(self):
        self.ptr, self.device_id = 0, -1


def get_current_stream(device_id=-1):
    used = _used[_current["device"] if device_id == -1 else device_id]
    return used[-1] if used else _Null()


class MemoryPool:
    def __init__(self):
        self.limit, self.kept = None, 0

    def used_bytes(self):
        return sum(end - first for first, end, _ in _memory.values())

    def take(self, nbytes):
        if self.limit is not None and self.used_bytes() + self.kept + nbytes > self.limit:
            raise OutOfMemoryError(
                f"Out of memory allocating {nbytes:,} bytes (allocated so far: {self.kept:,} bytes)."
            )

    def free_all_blocks(self):
        self.kept = 0


pool = MemoryPool()


class _Pointer:
    def __init__(self, owner, ptr, device_id):
        self._owner, self.ptr, self.device_id = owner, ptr, device_id


def alloc(nbytes):
    owner = _own(np.empty(nbytes, np.uint8))
    return _Pointer(owner, owner.ctypes.data if nbytes else 0, _current["device"])


def _own(memory):
    """Take up memory as that of the current device."""
    pool.take(memory.nbytes)
    key = id(memory)
    _memory[key] = (memory.ctypes.data, memory.ctypes.data + memory.nbytes, _current["device"])
    weakref.finalize(memory, _memory.pop, key, None)
    return memory


def _base(values):
    while isinstance(values.base, np.ndarray):
        values = values.base
    return values


def _wrap(x, launch=True):
    """What NumPy made, as arrays of the current device."""
    if isinstance(x, (tuple, list)):
        return tuple(_wrap(each, launch) for each in x)
    if isinstance(x, np.generic):
        x = np.array(x)
    if not isinstance(x, np.ndarray):
        return x
    if id(_base(x)) not in _memory:
        _own(_base(x))
        counts["launches"] += launch
    return ndarray(x)


def _unwrap(x, of_current=True):
    """What NumPy can compute with: no array of NumPy, nor of another device."""
    if isinstance(x, ndarray):
        if of_current and x.device.id != _current["device"]:
            raise ValueError(f"Array device must be same as the current device: {x.device.id}, {_current['device']}")
        return x._values
    if isinstance(x, np.ndarray):
        raise TypeError(f"Unsupported type {type(x)}")
    if isinstance(x, (tuple, list)):
        return type(x)(_unwrap(each) for each in x)
    return x


def _unwrap_all(args, keywords):
    return [_unwrap(x) for x in args], {name: _unwrap(x) for name, x in keywords.items()}


def _call(name, function, args, keywords):
    if name in VIEWS:
        made = function(_unwrap(args[0], of_current=False), *args[1:], **keywords)
        if np.may_share_memory(made, args[0]._values) or not made.size:
            return _wrap(made, launch=False)
    if name in WAITING or (name == "where" and len(args) == 1):
        counts["waits"] += 1
    if name in REDUCTIONS and {"initial", "where"} & keywords.keys():
        raise TypeError(f"{name}() got an unexpected keyword argument")
    out = keywords.get("out")
    args, keywords = _unwrap_all(args, keywords)
    made = function(*args, **keywords)
    if out is not None:
        counts["launches"] += 1
        return out
    return _wrap(made)


class _Flags:
    def __init__(self, flags):
        self.c_contiguous, self.f_contiguous, self.owndata = flags.c_contiguous, flags.f_contiguous, flags.owndata


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):
    __array_priority__ = 100

    def __init__(self, values):
        self._values = values
        self._first, _, self._device = _memory[id(_base(values))]

    shape = property(lambda self: self._values.shape)
    strides = property(lambda self: self._values.strides)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    itemsize = property(lambda self: self._values.itemsize)
    nbytes = property(lambda self: self._values.nbytes)
    flags = property(lambda self: _Flags(self._values.flags))
    device = property(lambda self: Device(self._device))
    T = property(lambda self: ndarray(self._values.T))
    base = property(lambda self: None if _base(self._values) is self._values else ndarray(_base(self._values)))

    @property
    def data(self):
        return _Pointer(self._values, self._values.ctypes.data if self.size else 0, self._device)

    @property
    def __cuda_array_interface__(self):
        made = {"shape": self.shape, "typestr": self.dtype.str, "strides": self.strides, "version": 3}
        return {**made, "data": (self.data.ptr, False), "stream": 1}

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` explicitly.")

    def __array_ufunc__(self, ufunc, method, *inputs, **keywords):
        if method != "__call__" or ufunc.__name__ not in UFUNCS:
            return NotImplemented
        if isinstance(keywords.get("out"), tuple):
            (keywords["out"],) = keywords["out"]
        return _call(ufunc.__name__, ufunc, inputs, keywords)

    def __array_function__(self, function, types, args, keywords):
        if function.__module__ == "numpy.linalg":
            return _call(function.__name__, function, args, keywords)
        if function.__name__ not in FUNCTIONS:
            return NotImplemented
        return _call(function.__name__, function, args, keywords)

    def get(self):
        counts["waits"] += 1
        return self._values.copy()

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __bool__(self):
        return bool(self.get())

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __repr__(self):
        return repr(self.get())

    def __format__(self, spec):
        return format(self.get(), spec)

    def __len__(self):
        return len(self._values)

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def __getitem__(self, at):
        parts = at if isinstance(at, tuple) else (at,)
        if not any(isinstance(x, (ndarray, list, np.ndarray)) for x in parts):
            parts = parts if Ellipsis in parts else (*parts, ...)  # of no dims it is an array, too
            return ndarray(self._values[parts])
        counts["waits"] += any(isinstance(x, ndarray) and x.dtype == bool for x in parts)
        return _wrap(np.asarray(_unwrap(self)[_unwrap(at)]))

    def __setitem__(self, at, value):
        counts["launches"] += 1
        _unwrap(self)[_unwrap(at)] = _unwrap(value)

    def __reduce__(self):
        return asarray, (self.get(),)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()


def _method(name):
    def call(self, *args, **keywords):
        args = [list(x) if isinstance(x, np.ndarray) else x for x in args]
        return _call(name, lambda x, *rest, **more: getattr(x, name)(*rest, **more), (self, *args), keywords)

    return call


for _name in METHODS:
    setattr(ndarray, _name, _method(_name))


def asarray(x, dtype=None):
    if isinstance(x, ndarray):
        if x.device.id != _current["device"]:
            return _wrap(x._values.astype(dtype or x.dtype))
        return x if dtype in (None, x.dtype) else x.astype(dtype)
    if hasattr(x, "__cuda_array_interface__"):
        return x.array
    counts["uploads"] += 1
    return _wrap(np.array(x, dtype), launch=False)


def ascontiguousarray(x, dtype=None):
    x = asarray(x, dtype)
    return x if x.flags.c_contiguous else x.copy()


def empty(shape, dtype=float):
    made = np.empty(shape, dtype)
    made.view(np.uint8 if made.ndim else made.dtype)[...] = 255 if made.ndim and made.size else 0
    return _wrap(made, launch=False)


def _maker(name):
    def make(*args, **keywords):
        return _wrap(getattr(np, name)(*args, **keywords))

    return make


def _function(name):
    def call(*args, **keywords):
        return _call(name, getattr(np, name), args, keywords)

    return call


def make_cupy():
    """The module, with names that CuPy has."""
    cupy, cuda = types.ModuleType("cupy"), types.ModuleType("cupy.cuda")
    for name in (*FUNCTIONS, *UFUNCS):
        setattr(cupy, name, _function(name))
    for name in ("zeros", "ones", "full", "eye", "arange", "linspace", "tril_indices", "triu_indices"):
        setattr(cupy, name, _maker(name))
    for made in (ndarray, asarray, ascontiguousarray, empty):
        setattr(cupy, made.__name__, made)
    cupy.array = lambda x, dtype=None: asarray(x, dtype).copy()
    cupy.asnumpy = lambda x: x.get() if isinstance(x, ndarray) else np.asarray(x)
    cupy.get_default_memory_pool = lambda: pool
    for made in (Device, Stream, get_current_stream, alloc):
        setattr(cuda, made.__name__, made)
    cupy.linalg = types.SimpleNamespace(
        svd=lambda *args, **keywords: _call("svd", np.linalg.svd, args, keywords),
        eigh=lambda *args, **keywords: _call("eigh", np.linalg.eigh, args, keywords),
    )
    cupy.cuda = cuda
    return cupy


# ---- the kernels


class Kernels:
    """What `reparam._cuda` offers; `error` is raised by the next calls. Where that is built, it reads the calls too."""

    targets, compiler, error = "80 90", "a stand-in", None

    def __init__(self, real=None):
        self.real = real

    def versions(self):
        return 13000, 13000

    def devices(self):
        return [{"name": "fake", "compute_capability": (9, 0), "memory": 2**34}] * 2

    def table(self):
        return _core.table()

    def scratch(self, name, vjp, dtype, shape, extents, operands, attributes, packed):
        if self.real is not None:
            return self.real.scratch(name, vjp, dtype, shape, extents, operands, attributes, packed)
        return 256 * len(operands)

    def run(self, name, vjp, dtype, shape, extents, operands, attributes, packed, scratch, stream):
        device = _current["device"]
        if self.error is not None:
            raise self.error
        if device not in _streams[stream]:
            raise RuntimeError(f"{name}: invalid resource handle (cudaErrorInvalidResourceHandle)")
        size = self.scratch(name, vjp, dtype, shape, extents, operands, attributes, packed)
        _require_inside(scratch, scratch + size, device)
        op = OPS[name]
        p = (op.value_and_vjp_pass or op.vjp_pass) if vjp else op.forward_pass
        specs = [*((o, False) for o in p.inputs), *((o, True) for o in p.outputs)]
        assert len(specs) == len(operands)
        sizes = dict(zip(p.symbols, extents, strict=True))
        arrays = [
            None if x is None else _read(x, o, writes or o.in_place, (shape, sizes, dtype, packed))
            for x, (o, writes) in zip(operands, specs, strict=True)
        ]
        _core.run(name, vjp, "scalar", dtype, shape, extents, arrays, attributes, 1, packed)
        counts["kernels"] += 1
        calls.append((name, device, stream, size))


def _require_inside(first, end, device):
    if first == end:
        return
    assert any(a <= first and end <= b and d == device for a, b, d in _memory.values()), "outside of its memory"


class _Walk:
    def __init__(self, address, shape, strides, dtype):
        self.__array_interface__ = {
            "version": 3, "shape": shape, "strides": strides, "typestr": dtype.str, "data": (address, False),
        }  # fmt: skip


def _read(given, operand, writes, call):
    shape, sizes, real, packed = call
    address, batch, event = given[:3]
    drawn = len(given) == 4
    dtype = np.dtype("uint64" if drawn else real if operand.item == "real" else operand.item)
    event_shape = () if drawn else operand.event_shape(sizes)
    if packed and operand.kind == "tril" and not drawn:
        event_shape = (event_shape[0] * (event_shape[0] + 1) // 2,)
    assert len(batch) == len(shape)
    assert len(event) == len(event_shape)
    whole = [n if stride or not writes else 1 for n, stride in zip(shape, batch, strict=True)]
    lengths, strides = (*whole, *event_shape), [s * dtype.itemsize for s in (*batch, *event)]
    if 0 in lengths:
        found = np.empty(lengths, dtype)
    else:
        reach = [(n - 1) * s for n, s in zip(lengths, strides, strict=True)]
        first, last = address + sum(min(0, r) for r in reach), address + sum(max(0, r) for r in reach)
        _require_inside(first, last + dtype.itemsize, _current["device"])
        found = np.asarray(_Walk(address, tuple(lengths), tuple(strides), dtype))
    return (given[3], found) if drawn else found


@contextlib.contextmanager
def installed():
    """`cupy` and the kernels are these for a while."""
    before, kernels = (sys.modules.get("cupy"), backend._cuda), Kernels(backend._cuda)
    sys.modules["cupy"], backend._cuda = make_cupy(), kernels
    counts.clear()
    calls.clear()
    pool.limit, pool.kept = None, 0
    try:
        yield sys.modules["cupy"], kernels
    finally:
        backend._cuda = before[1]
        if before[0] is None:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before[0]
