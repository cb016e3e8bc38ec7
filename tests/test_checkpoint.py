# SPDX-License-Identifier: MIT
"""Checkpoints: the same bits after a round trip, after a crash and a resume; whatever else a file holds is refused."""

import errno
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_limits

import reparam as rp
from support import same_bits

GOOD = np.arange(30.0).reshape(10, 3) % 2  # fits every likelihood
LIKELIHOODS = {
    "gaussian": {"likelihood": "gaussian"},
    "gaussian-fixed": {"likelihood": "gaussian", "noise_scale": 0.7},
    "bernoulli": {"likelihood": "bernoulli"},
    "binomial": {"likelihood": "binomial", "total_count": 5},
}


@pytest.fixture(autouse=True, scope="module")
def _one_blas_thread():
    with threadpool_limits(1):
        yield


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


def make(likelihood="gaussian", **arguments):
    small = {"latent_dim": 2, "hidden": (4,), "batch_size": 4, "epochs": 3, "lr": 0.01, "key": 2**63 + 5}
    return rp.VAE(**{**small, **LIKELIHOODS[likelihood], **arguments})


def bits_of(model):
    """Everything that a resumed fit must have in common with an uninterrupted one."""
    adam = model._optimizer.state_dict()
    arrays = (model._params, model._mean, adam["m"][0], adam["v"][0], *model.history_.values())
    return [array.tobytes() for array in arrays], adam["t"], model._step


def assert_same_answers(actual, expected, x=GOOD):
    z = np.linspace(-1, 1, 8).reshape(4, 2)
    for call in (
        lambda m: (m._params, m._mean),
        lambda m: (m.elbo(x, key=1), m.log_likelihood(x, key=1, num_samples=20)),
        lambda m: (m.generate(z, key=2), m.sample(5, key=3), m.decode(z)),
        lambda m: tuple((q.mean, q.covariance_matrix) for q in (m.posterior(x), m.posterior(x, refine=3))),
        lambda m: tuple(m.history_.values()),
    ):
        same_bits(call(actual), call(expected))
    for name in rp.VAE.argument_names():
        assert getattr(actual, name) == getattr(expected, name)


# ---- the round trip


@pytest.mark.parametrize("written", ["save", "checkpoint"])
@pytest.mark.parametrize("covariance_type", ["full", "diag"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_a_loaded_model_gives_the_same_bits(likelihood, covariance_type, dtype, written, path):
    model = make(likelihood, covariance_type=covariance_type, dtype=dtype, hidden=(4, 3), kl_weight=0.5)
    model.fit(GOOD, validation=GOOD[:4], checkpoint=path if written == "checkpoint" else None)
    if written == "save":
        model.save(path)
    loaded = rp.VAE.load(str(path))
    assert_same_answers(loaded, model)
    again = path.with_name("again.npz")
    loaded.save(again)
    assert_same_answers(rp.VAE.load(again), model)


def test_a_model_of_partial_fit_is_saved_too(path):
    model = make("binomial").partial_fit(GOOD).partial_fit(GOOD)
    model.save(path)
    loaded = rp.VAE.load(path)
    assert_same_answers(loaded, model)
    assert loaded._step == model._step == 6


def test_training_goes_on_from_a_loaded_checkpoint_as_from_the_model(path):
    """The checkpoint has the optimizer's moments; a saved model starts them anew."""
    model = make().fit(GOOD, checkpoint=path)
    model.save(path.with_name("saved.npz"))
    loaded, saved = rp.VAE.load(path), rp.VAE.load(path.with_name("saved.npz"))
    assert bits_of(loaded) == bits_of(model)
    assert saved._optimizer.t == 0
    model.partial_fit(GOOD)
    assert bits_of(loaded.partial_fit(GOOD)) == bits_of(model)


def test_the_file_is_a_plain_npz(path):
    model = make().fit(GOOD, checkpoint=path)
    with np.load(path, allow_pickle=False) as stored:
        assert set(stored.files) == {"header", "params", "mean", "adam_m", "adam_v"}
        same_bits(stored["params"], model._params)
        header = json.loads(stored["header"].tobytes())
    assert header["kind"] == "VAE"
    assert header["config"]["latent_dim"] == 2
    model.save(path)
    with np.load(path, allow_pickle=False) as stored:
        assert set(stored.files) == {"header", "params", "mean"}


def test_the_file_has_the_permissions_of_any_new_file(path):
    model, plain = make().fit(GOOD), path.with_name("plain")
    model.save(path)
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


# ---- a failure while writing


class Halt(BaseException):
    """No Exception: as a Ctrl-C."""


def half_of(savez):
    def write(file, **arrays):
        whole = io.BytesIO()
        savez(whole, **arrays)
        file.write(whole.getvalue()[: len(whole.getvalue()) // 2])
        raise Halt

    return write


def fail(*_):
    raise Halt


STAGES = {"array": (np, "savez", half_of(np.savez)), "flush": (os, "fsync", fail), "rename": (os, "replace", fail)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_write_that_fails_leaves_the_previous_file(stage, path, monkeypatch):
    model = make().fit(GOOD)
    model.save(path)
    before = path.read_bytes()
    model.partial_fit(GOOD)
    with monkeypatch.context() as patch:
        patch.setattr(*STAGES[stage])
        for destination in (path, path.with_name("new.npz")):
            with pytest.raises(Halt):
                model.save(destination)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before
    model.save(path)
    assert path.read_bytes() != before


@pytest.mark.parametrize("stage", STAGES)
def test_a_fit_whose_checkpoint_fails_leaves_the_last_one_and_a_model_that_works(stage, path, monkeypatch):
    model, first = make(), make(epochs=1).fit(GOOD)
    module, name, failing = STAGES[stage]

    def callback(info):
        if info.epoch == 1:
            monkeypatch.setattr(module, name, failing)

    with pytest.raises(Halt):
        model.fit(GOOD, checkpoint=path, callbacks=[callback])
    monkeypatch.undo()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    assert bits_of(rp.VAE.load(path)) == bits_of(first)
    assert np.isfinite(model.elbo(GOOD, key=0)).all()
    assert bits_of(make().fit(GOOD, checkpoint=path, resume=True)) == bits_of(make().fit(GOOD))


def test_a_file_that_is_in_place_is_whole_even_if_its_folder_cannot_be_flushed(path, monkeypatch):
    model, flush = make().fit(GOOD), os.fsync
    calls = []

    def second_fails(handle):
        calls.append(handle)
        if len(calls) == 2:
            raise OSError("folder")
        flush(handle)

    monkeypatch.setattr(os, "fsync", second_fails)
    with pytest.raises(OSError, match="folder"):
        model.save(path)
    assert_same_answers(rp.VAE.load(path), model)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_fit_that_diverges_leaves_the_checkpoint_before_it(path):
    """1797 digits, 15 steps an epoch: step 31 spoils the parameters, and the checkpoint is that of step 30."""
    x = load_digits().data
    settings = {"hidden": (16,), "batch_size": 128, "epochs": 3, "likelihood": "binomial", "total_count": 16}
    sane = lambda step: 1e-3  # noqa: E731
    kept = []

    def callback(info):
        if info.step == 31:
            kept.append(path.read_bytes())

    model = rp.VAE(4, **settings, lr=lambda step: 1e-3 if step < 31 else 1e6)
    with pytest.raises(ValueError, match=r"training diverged.*step 3[12] \(epoch 2\)"):
        model.fit(x, checkpoint=path, callbacks=[callback])
    assert kept == [path.read_bytes()]
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    np.testing.assert_array_equal(rp.VAE.load(path).history_["step"], [15, 30])
    resumed = rp.VAE(4, **settings, lr=sane).fit(x, checkpoint=path, resume=True)
    assert bits_of(resumed) == bits_of(rp.VAE(4, **settings, lr=sane).fit(x))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("what", ["params", "mean", "adam_m", "adam_v"])
def test_what_is_not_finite_is_not_written(what, value, path):
    model = make().fit(GOOD, checkpoint=path)
    before, adam = path.read_bytes(), model._optimizer
    {"params": model._params, "mean": model._mean, "adam_m": adam.m[0], "adam_v": adam.v[0]}[what][1] = value
    with pytest.raises(rp.CheckpointError, match=f"{re.escape(str(path))}: not written, {what} holds numbers that are"):
        model._write(path, {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    if what in {"params", "mean"}:
        with pytest.raises(rp.CheckpointError, match="not written"):
            model.save(path)


# ---- paths


def test_a_path_is_named(tmp_path):
    model = make().fit(GOOD)
    for call in (model.save, rp.VAE.load):
        for wrong in (None, 3, b"model.npz", "a\0b"):
            with pytest.raises((TypeError, ValueError), match="VAE: path must be a path, got"):
                call(wrong)
    with pytest.raises(ValueError, match=f"VAE: path must be a file, got the folder '{re.escape(str(tmp_path))}'"):
        model.save(tmp_path)
    with pytest.raises(ValueError, match=r"VAE: path: the folder of .*none.x' does not exist"):
        model.save(tmp_path / "none" / "x")


def test_an_error_of_the_system_has_the_path_that_was_given(path, monkeypatch):
    model = make().fit(GOOD)
    with pytest.raises(FileNotFoundError) as caught:
        model.save("/proc/x")  # no file can be made there
    assert caught.value.filename == "/proc/x"
    model.save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        model.save(path)
    assert (caught.value.filename, caught.value.errno) == (str(path), errno.ENOSPC)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_regular_file_is_not_replaced(linked, tmp_path):
    """A pipe stands for a device: fit(checkpoint="/dev/null") as root must not make a file of it."""
    pipe, path = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    path.symlink_to(pipe) if linked else pipe.rename(path)
    model = make().fit(GOOD)
    before = bits_of(model)
    for name, call in (
        ("checkpoint", lambda: model.fit(GOOD, checkpoint=path)),
        ("checkpoint", lambda: model.fit(GOOD, checkpoint=path, resume=True)),
        ("path", lambda: model.save(path)),
        ("path", lambda: rp.VAE.load(path)),
    ):
        with pytest.raises(ValueError, match=f"VAE: {name} must be a regular file, got '{re.escape(str(path))}'"):
            call()
    with pytest.raises(ValueError, match="no regular file, and is not replaced"):
        model._write(path, None)
    assert path.is_fifo()
    assert bits_of(model) == before


def test_of_a_link_the_target_is_replaced(tmp_path):
    folder, link = tmp_path / "folder", tmp_path / "link.npz"
    folder.mkdir()
    link.symlink_to(folder / "model.npz")  # which is not there yet
    for _ in range(2):
        model = make().fit(GOOD, checkpoint=link, resume=True)
        assert link.is_symlink()
        assert [p.name for p in folder.iterdir()] == ["model.npz"]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "link.npz"]
        assert bits_of(rp.VAE.load(link)) == bits_of(rp.VAE.load(folder / "model.npz")) == bits_of(model)
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    with pytest.raises(ValueError, match="must be a regular file"):
        model.save(circle)
    assert circle.is_symlink()


def test_a_name_as_long_as_the_system_has_them(tmp_path):
    model, path = make().fit(GOOD), tmp_path / ("m" * 255)
    model.save(path)
    assert_same_answers(rp.VAE.load(path), model)


# ---- files that are something else


def entries_of(path):
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def pack(path, entries, compression=zipfile.ZIP_STORED, compresslevel=None):
    with zipfile.ZipFile(path, "w", compression, compresslevel=compresslevel) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def npy(array, version=None, allow_pickle=False):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version, allow_pickle)
    return stream.getvalue()


def npy_of_shape(shape, dtype="<f4"):
    """The header of a large array, and few bytes of it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": shape})
    return stream.getvalue() + bytes(64)


def repack(path, **arrays):
    """Replace arrays of a checkpoint (None removes one), with valid checksums."""
    changed = {f"{name}.npy": content for name, content in arrays.items()}
    entries = {**entries_of(path), **{n: c if isinstance(c, bytes | None) else npy(c) for n, c in changed.items()}}
    pack(path, {name: content for name, content in entries.items() if content is not None})


def header_of(path):
    with np.load(path) as stored:
        return json.loads(stored["header"].tobytes())


def with_header(text):
    return lambda path: repack(path, header=np.frombuffer(text, np.uint8))


def edit(**changes):
    """Entries of the header: a value, or a function of the old one; ``...`` removes it."""

    def write(path):
        header = header_of(path)
        for name, change in changes.items():
            header[name] = change(header[name]) if callable(change) else change
        kept = {name: value for name, value in header.items() if value is not ...}
        with_header(json.dumps(kept).encode())(path)

    return write


def but(**changes):
    return lambda old: {name: value for name, value in {**old, **changes}.items() if value is not ...}


def array(name):
    def of(path):
        with np.load(path) as stored:
            return stored[name].copy()

    return of


def spoil(name, value):
    def write(path):
        changed = array(name)(path)
        changed[1] = value
        repack(path, **{name: changed})

    return write


def convert(name, function):
    return lambda path: repack(path, **{name: function(array(name)(path))})


class Payload:
    """Unpickled, it leaves a mark."""

    mark = ""

    def __reduce__(self):
        return os.mkdir, (self.mark,)


def pickled(where):
    def write(path):
        Payload.mark = str(path.with_name("unpickled"))
        if where == "file":
            path.write_bytes(pickle.dumps(Payload()))
        elif where == "npy":
            path.write_bytes(npy(np.array([Payload()], object), allow_pickle=True))
        else:
            repack(path, **{where: npy(np.array([Payload()], object), allow_pickle=True)})

    return write


def twice(path):
    entries = entries_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("params.npy", entries["params.npy"])


def with_and_without_suffix(path):
    entries = entries_of(path)
    pack(path, {**entries, "params": entries["params.npy"]})


def claim_more(path):
    """Sizes in the zip's directory far beyond the file."""
    entries = entries_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
        entry = archive.getinfo("params.npy")
        entry.file_size = entry.compress_size = 2**40


def bomb(path):
    pack(path, {**entries_of(path), "params.npy": npy(np.zeros(2**25, np.uint8))}, zipfile.ZIP_DEFLATED)


FOREIGN = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("params = 1\n"),
    "npy": lambda path: path.write_bytes(npy(np.zeros(5))),
    "foreign-npz": lambda path: np.savez(path, x=np.zeros(5)),
    "foreign-npz-with-header": lambda path: np.savez(path, header=np.frombuffer(b'{"a": 1}', np.uint8)),
    "foreign-zip": lambda path: pack(path, {"readme.txt": b"hello"}),
    "empty-zip": lambda path: pack(path, {}),
    "no-npy-in-zip": lambda path: pack(path, {**entries_of(path), "note.txt": b"hello"}),
    "compressed": lambda path: pack(path, entries_of(path), zipfile.ZIP_DEFLATED),
    "compressed-to-more-bytes": lambda path: pack(path, entries_of(path), zipfile.ZIP_DEFLATED, compresslevel=0),
    "bomb": bomb,
    "twice": twice,
    "with-and-without-suffix": with_and_without_suffix,
    "claims-more-than-the-file": claim_more,
    "huge-shape": lambda path: repack(path, params=npy_of_shape((2**33,))),
    "huge-shape-of-two": lambda path: repack(path, params=npy_of_shape((2**40, 2**40))),
    "huge-element": lambda path: repack(path, params=npy_of_shape((1,), "|V2000000000")),
    "negative-shape": lambda path: repack(path, params=npy_of_shape((-2, 5))),
    "npy-version-9": lambda path: repack(path, params=npy(array("params")(path)).replace(b"NUMPY\x01", b"NUMPY\x09")),
    "npy-version-2": lambda path: repack(path, params=npy(array("params")(path), (2, 0))),
    "pickle": pickled("file"),
    "pickle-in-npy": pickled("npy"),
    "pickle-in-params": pickled("params"),
    "pickle-in-header": pickled("header"),
    "header-is-no-json": with_header(b"{not json"),
    "header-is-no-text": with_header(b"\xff\xfe\x00"),
    "header-is-empty": lambda path: repack(path, header=npy(np.zeros(0, np.uint8))),
    "header-is-a-list": with_header(b"[1, 2]"),
    "header-is-deep": with_header(b"[" * 100_000),
    "no-header": lambda path: repack(path, header=None),
    "other-format": edit(format="other"),
    "no-format": edit(format=...),
    "newer-version": edit(version=2),
    "no-version": edit(version=...),
    "text-version": edit(version="1"),
    "other-kind": edit(kind="GaussianMixture"),
    "no-kind": edit(kind=...),
    "no-config": edit(config=...),
    "config-is-a-list": edit(config=[1, 2]),
    "config-is-a-number": edit(config=7),
    "unknown-argument": edit(config=but(temperature=1.0)),
    "missing-argument": edit(config=but(kl_weight=...)),
    "bad-latent-dim": edit(config=but(latent_dim=0)),
    "huge-latent-dim": edit(config=but(latent_dim=2**40)),
    "text-latent-dim": edit(config=but(latent_dim="2")),
    "huge-hidden": edit(config=but(hidden=[2**20, 2**20, 2**20])),
    "hidden-is-a-number": edit(config=but(hidden=4)),
    "bad-dtype": edit(config=but(dtype="int8")),
    "other-dtype": edit(config=but(dtype="float64")),
    "other-activation": edit(config=but(activation="sin")),
    "nan-lr": edit(config=but(lr=float("nan"))),
    "bad-key": edit(config=but(key=-1)),
    "other-width": edit(config=but(hidden=[5])),
    "other-family": edit(config=but(covariance_type="diag")),
    "no-data-dim": edit(data_dim=...),
    "zero-data-dim": edit(data_dim=0),
    "huge-data-dim": edit(data_dim=2**60),
    "float-data-dim": edit(data_dim=3.0),
    "no-step": edit(step=...),
    "negative-step": edit(step=-1),
    "no-history": edit(history=...),
    "history-is-a-list": edit(history=[[1.0], [0.0], [0.0], [0.0]]),
    "history-lacks-a-column": edit(history=but(elbo=...)),
    "history-of-text": edit(history=but(elbo=["a", "b", "c"])),
    "history-of-huge-numbers": edit(history=but(elbo=[10**400, 1, 1])),
    "history-of-unequal-columns": edit(history=but(elbo=[1.0])),
    "no-adam-step": edit(adam_step=...),
    "huge-adam-step": edit(adam_step=2**80),
    "no-data": edit(data=...),
    "data-is-a-number": edit(data=5),
    "no-params": lambda path: repack(path, params=None),
    "no-mean": lambda path: repack(path, mean=None),
    "no-adam-m": lambda path: repack(path, adam_m=None),
    "no-adam-v": lambda path: repack(path, adam_v=None),
    "nan-params": spoil("params", np.nan),
    "infinite-params": spoil("params", -np.inf),
    "nan-mean": spoil("mean", np.nan),
    "nan-adam": spoil("adam_v", np.nan),
    "params-of-another-type": convert("params", lambda a: a.astype(np.float64)),
    "params-of-another-byte-order": convert("params", lambda a: a.astype(">f4")),
    "params-of-another-shape": convert("params", lambda a: a[None]),
    "fewer-params": convert("params", lambda a: a[:-1]),
    "fewer-means": convert("mean", lambda a: a[:-1]),
    "fewer-moments": convert("adam_m", lambda a: a[:-1]),
}


@pytest.fixture
def fitted(path):
    """A model with its checkpoint in ``path``, and a check afterwards that nothing has changed the model."""
    model = make().fit(GOOD, checkpoint=path)
    before = bits_of(model)
    yield model
    assert bits_of(model) == before


def assert_refused(path, model):
    """By load, without memory of a size that the file only claims, and by a resumed fit; the message names the file."""
    size = path.stat().st_size
    tracemalloc.start()
    try:
        with pytest.raises(rp.CheckpointError, match=re.escape(str(path))):
            rp.VAE.load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21 + 8 * size
    finally:
        tracemalloc.stop()
    with pytest.raises(rp.CheckpointError, match=re.escape(str(path))):
        model.fit(GOOD, checkpoint=path, resume=True)


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_file_that_is_no_checkpoint_is_refused(kind, fitted, path):
    FOREIGN[kind](path)
    before = path.read_bytes()
    assert_refused(path, fitted)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing was unpickled, nothing is left behind


def test_the_payload_would_have_left_a_mark(path):
    pickled("file")(path)
    pickle.loads(path.read_bytes())
    assert path.with_name("unpickled").is_dir()


def test_a_rebuilt_checkpoint_is_accepted(fitted, path):
    """So what is refused above is refused for what was changed."""
    for write in (repack, edit(), edit(config=but()), convert("params", lambda a: a)):
        write(path)
        assert bits_of(rp.VAE.load(path)) == bits_of(fitted)


def test_a_checkpoint_that_is_not_there(tmp_path):
    missing = tmp_path / "missing.npz"
    with pytest.raises(FileNotFoundError, match=re.escape(str(missing))):
        rp.VAE.load(missing)
    with pytest.raises(IsADirectoryError, match=re.escape(str(tmp_path))):
        rp.VAE.load(tmp_path)


def test_a_checkpoint_error_is_a_value_error():
    assert issubclass(rp.CheckpointError, ValueError)


def test_a_truncated_file_is_refused_at_any_length(fitted, path):
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(rp.CheckpointError, match=re.escape(str(path))):
            rp.VAE.load(path)
    path.write_bytes(whole[: len(whole) // 2])
    assert_refused(path, fitted)


def flipped(content, bit):
    spoiled = bytearray(content)
    spoiled[bit // 8] ^= 1 << bit % 8
    return bytes(spoiled)


def test_a_flipped_bit_is_refused_or_was_of_no_consequence(fitted, path, rng):
    whole, refused = path.read_bytes(), 0
    bits = rng.choice(8 * len(whole), 600, replace=False)
    for bit in bits:
        path.write_bytes(flipped(whole, bit))
        try:
            loaded = rp.VAE.load(path)
        except rp.CheckpointError:
            refused += 1
            continue
        assert bits_of(loaded) == bits_of(fitted)
        assert loaded._config() == fitted._config()
    assert refused > 0.8 * len(bits)


@pytest.mark.parametrize("entry", ["header", "params", "mean", "adam_m", "adam_v"])
def test_a_flipped_bit_of_an_entry_is_always_refused(entry, fitted, path, rng):
    whole, content = path.read_bytes(), entries_of(path)[f"{entry}.npy"]
    start = whole.index(content)
    for bit in 8 * start + rng.choice(8 * len(content), 40, replace=False):
        path.write_bytes(flipped(whole, bit))
        with pytest.raises(rp.CheckpointError, match=re.escape(str(path))):
            rp.VAE.load(path)


# ---- resume


class Interruption(Exception):
    pass


def interrupt_at(step):
    def callback(info):
        if info.step == step:
            raise Interruption

    return callback


@pytest.mark.parametrize(
    "arguments",
    [
        {"likelihood": "gaussian", "covariance_type": "full", "dtype": "float32"},
        {"likelihood": "gaussian", "covariance_type": "diag", "dtype": "float64", "noise_scale": np.float32(0.3)},
        {"likelihood": "bernoulli", "num_samples": 3, "kl_weight": 0.5, "hidden": ()},
        {"likelihood": "binomial", "total_count": np.int64(5), "lr": lambda step: 0.1 / step, "activation": "gelu"},
    ],
    ids=["full-float32", "diag-float64-fixed", "bernoulli-linear", "binomial-lr-function"],
)
def test_a_fit_interrupted_at_any_step_and_resumed_equals_an_uninterrupted_one(arguments, path):
    """3 epochs of 3 steps; after an interruption in the first epoch there is no file, and the fit starts again."""
    settings = {"validation": GOOD[:3]}
    expected = bits_of(make(**arguments).fit(GOOD, **settings))
    for step in range(1, 10):
        path.unlink(missing_ok=True)
        with pytest.raises(Interruption):
            make(**arguments).fit(GOOD, **settings, checkpoint=path, callbacks=[interrupt_at(step)])
        assert path.exists() == (step > 3)
        resumed = make(**arguments).fit(GOOD, **settings, checkpoint=path, resume=True)
        assert bits_of(resumed) == expected
        assert bits_of(rp.VAE.load(path)) == expected


def test_resume_does_not_depend_on_threads(path):
    x = np.random.default_rng(0).standard_normal((600, 4))
    settings = {"latent_dim": 8, "batch_size": 300, "num_samples": 8}
    rp.set_num_threads(1)
    expected = bits_of(make(**settings).fit(x))
    with pytest.raises(Interruption):
        make(**settings).fit(x, checkpoint=path, callbacks=[interrupt_at(3)])
    rp.set_num_threads(3)
    assert bits_of(make(**settings).fit(x, checkpoint=path, resume=True)) == expected


def test_a_checkpoint_is_written_every_epoch_and_at_the_end(path):
    seen = []

    def callback(info):
        seen.append(len(rp.VAE.load(path).history_["epoch"]) if path.exists() else None)
        return info.step == 8

    model = make().fit(GOOD, checkpoint=path, callbacks=[callback])
    assert seen == [None, None, None, 1, 1, 1, 2, 2]
    assert bits_of(rp.VAE.load(path)) == bits_of(model)  # the fit was stopped within an epoch
    assert model._step == 8


def test_a_stopped_fit_goes_on_with_a_new_pass_of_its_epoch(path):
    stop = [lambda info: info.step == 5]
    make().fit(GOOD, checkpoint=path, callbacks=stop)
    model = make().fit(GOOD, checkpoint=path, resume=True)
    np.testing.assert_array_equal(model.history_["epoch"], [0, 1, 2])
    np.testing.assert_array_equal(model.history_["step"], [3, 5 + 3, 5 + 6])


def test_resume_after_the_end_adds_nothing(path):
    expected = bits_of(make().fit(GOOD, checkpoint=path))
    untouched = [lambda _: pytest.fail("a step was made")]
    assert bits_of(make().fit(GOOD, checkpoint=path, resume=True, callbacks=untouched)) == expected
    assert bits_of(make(epochs=1).fit(GOOD, checkpoint=path, resume=True, callbacks=untouched)) == expected
    assert bits_of(rp.VAE.load(path)) == expected


def test_resume_with_more_epochs_equals_one_longer_fit(path):
    make().fit(GOOD, checkpoint=path)
    model = make(epochs=7).fit(GOOD, checkpoint=path, resume=True)
    assert bits_of(model) == bits_of(make(epochs=7).fit(GOOD))
    assert rp.VAE.load(path).epochs == 7


def test_resume_without_a_file_starts_from_the_beginning(path):
    model = make().fit(GOOD, checkpoint=path, resume=True)
    assert bits_of(model) == bits_of(make().fit(GOOD)) == bits_of(rp.VAE.load(path))


def test_a_fit_without_resume_starts_anew_whatever_the_file_holds(path):
    for content in (b"junk", None):
        if content is not None:
            path.write_bytes(content)
        assert bits_of(make().fit(GOOD, checkpoint=path)) == bits_of(make().fit(GOOD)) == bits_of(rp.VAE.load(path))


def test_a_model_that_was_trained_on_something_else_resumes_all_the_same(path):
    with pytest.raises(Interruption):
        make().fit(GOOD, checkpoint=path, callbacks=[interrupt_at(5)])
    model = make().fit(1 - GOOD[:, :2]).fit(GOOD, checkpoint=path, resume=True)
    assert bits_of(model) == bits_of(make().fit(GOOD))


OTHER_ARGUMENTS = {  # argument: (of the checkpoint, here)
    "latent_dim": ({}, {"latent_dim": 3}),
    "hidden": ({}, {"hidden": (4, 4)}),
    "covariance_type": ({}, {"covariance_type": "diag"}),
    "likelihood": ({}, {"likelihood": "bernoulli"}),
    "total_count": (LIKELIHOODS["binomial"], {**LIKELIHOODS["binomial"], "total_count": 6}),
    "noise_scale": ({}, {"noise_scale": 1.0}),
    "activation": ({}, {"activation": "relu"}),
    "num_samples": ({}, {"num_samples": 2}),
    "kl_weight": ({}, {"kl_weight": 0.99}),
    "lr": ({}, {"lr": 0.02}),
    "batch_size": ({}, {"batch_size": 5}),
    "dtype": ({}, {"dtype": "float64"}),
    "key": ({}, {"key": 1}),
}


@pytest.mark.parametrize("name", OTHER_ARGUMENTS)
def test_resume_with_another_argument_names_it(name, path):
    stored, here = OTHER_ARGUMENTS[name]
    make(**stored).fit(GOOD, checkpoint=path)
    before, model = path.read_bytes(), make(**here).fit(GOOD)
    trained = bits_of(model)
    message = rf"{re.escape(str(path))}: {name} is .* in the checkpoint and .* here"
    with pytest.raises(rp.CheckpointError, match=message):
        model.fit(GOOD, checkpoint=path, resume=True)
    assert bits_of(model) == trained
    assert path.read_bytes() == before


def test_every_argument_is_compared():
    """``estimator`` has one choice so far."""
    assert {*OTHER_ARGUMENTS, "epochs", "estimator"} == set(rp.VAE.argument_names())


def test_a_function_for_lr_equals_any_function_and_no_number(path):
    """A file cannot hold a function: it says that lr was one. To pass the same again is the caller's part."""
    half, quarter = (lambda step: 0.5 / step), (lambda step: 0.25 / step)
    make(lr=half, epochs=1).fit(GOOD, checkpoint=path)
    with pytest.raises(rp.CheckpointError, match=r"lr is 'callable' in the checkpoint and 0\.01 here"):
        make().fit(GOOD, checkpoint=path, resume=True)
    assert bits_of(make(lr=half).fit(GOOD, checkpoint=path, resume=True)) == bits_of(make(lr=half).fit(GOOD))
    make(lr=half, epochs=1).fit(GOOD, checkpoint=path)
    assert bits_of(make(lr=quarter).fit(GOOD, checkpoint=path, resume=True)) != bits_of(make(lr=half).fit(GOOD))
    make().fit(GOOD, checkpoint=path)
    with pytest.raises(rp.CheckpointError, match=r"lr is 0\.01 in the checkpoint and 'callable' here"):
        make(lr=half).fit(GOOD, checkpoint=path, resume=True)


def one_entry_other():
    x = GOOD.copy()
    x[9, 2] = 1 - x[9, 2]
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (one_entry_other(), r"values \(their CRC-32\) \d+ in the checkpoint and \d+ here"),
        (GOOD[::-1], r"values \(their CRC-32\) \d+ in the checkpoint and \d+ here"),
        (GOOD[:9], r"shape \[10, 3\] in the checkpoint and \[9, 3\] here"),
        (GOOD[:, :2], r"shape \[10, 3\] in the checkpoint and \[10, 2\] here"),
        (GOOD.reshape(5, 6), r"shape \[10, 3\] in the checkpoint and \[5, 6\] here"),
        (GOOD.astype(np.float32), "dtype float64 in the checkpoint and float32 here"),
        (GOOD.astype(int), "dtype float64 in the checkpoint and int64 here"),
    ],
    ids=["one-entry", "order", "rows", "columns", "reshaped", "float32", "int"],
)
def test_resume_with_other_data_names_the_difference(x, message, fitted, path):
    with pytest.raises(rp.CheckpointError, match=f"{re.escape(str(path))}: other data: {message}"):
        fitted.fit(x, checkpoint=path, resume=True)


def test_the_layout_of_the_data_does_not_matter(fitted, path):
    for same in (np.asfortranarray(GOOD), np.repeat(GOOD, 2, axis=0)[::2], GOOD.tolist()):
        resumed = make().fit(same, checkpoint=path, resume=True)
        assert bits_of(resumed) == bits_of(fitted)


def test_a_saved_model_is_nothing_to_resume_from(fitted, path):
    fitted.save(path)
    with pytest.raises(rp.CheckpointError, match=f"{re.escape(str(path))} was written by save.*optimizer"):
        fitted.fit(GOOD, checkpoint=path, resume=True)


# ---- resume after a kill

CHILD = """
import json, os, signal, sys, time
import numpy as np
import reparam as rp

settings, data, path, stage, wait_at = json.loads(sys.argv[1])


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def half(file, **arrays):
    file.write(b"PK\\x03\\x04" + bytes(500))
    file.flush()
    kill()


def callback(info):
    if info.step % 6 == 1:
        print(info.epoch, flush=True)  # the checkpoint of the epoch before it is on the disk
        if info.epoch == wait_at and stage:
            module, name, replacement = {
                "array": (np, "savez", half), "flush": (os, "fsync", kill), "rename": (os, "replace", kill)
            }[stage]
            setattr(module, name, replacement)
        elif info.epoch == wait_at:
            time.sleep(600)  # it cannot end before it is killed
    time.sleep(0.002)


rp.VAE(**settings).fit(np.load(data), checkpoint=path, resume=True, callbacks=[callback])
"""
EPOCHS, LAST = 40, 30
SETTINGS = {"latent_dim": 2, "hidden": [5], "batch_size": 10, "epochs": EPOCHS, "lr": 0.01, "key": 7}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """60 rows in a file, and what an uninterrupted fit of them gives."""
    x = np.random.default_rng(3).standard_normal((60, 4))
    file = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(file, x)
    with threadpool_limits(1):
        return x, file, bits_of(rp.VAE(**SETTINGS).fit(x))


def child(data, path, stage=None, wait_at=LAST):
    arguments = json.dumps([SETTINGS, str(data[1]), str(path), stage, wait_at])
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", CHILD, arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def epochs_in(path):
    return len(rp.VAE.load(path).history_["epoch"])


def test_a_fit_killed_at_random_moments_and_resumed_equals_an_uninterrupted_one(data, path):
    stored = 0
    for _ in range(2):
        with child(data, path) as process:
            begun = next(int(line) for line in process.stdout if int(line) > stored)
            time.sleep(np.random.default_rng().uniform(0, 0.05))  # an epoch takes some 20 ms
            process.kill()
        assert process.returncode == -signal.SIGKILL
        before, stored = stored, epochs_in(path)
        assert before < begun <= stored < EPOCHS
    x, _, expected = data
    model = rp.VAE(**SETTINGS).fit(x, checkpoint=path, resume=True)
    assert bits_of(model) == expected
    assert bits_of(rp.VAE.load(path)) == expected


@pytest.mark.parametrize("stage", ["array", "flush", "rename"])
def test_a_kill_within_the_write_leaves_the_previous_checkpoint(stage, data, path):
    with child(data, path, stage, wait_at=2) as process:
        assert [int(line) for line in process.stdout] == [0, 1, 2]
    assert process.returncode == -signal.SIGKILL
    assert epochs_in(path) == 2
    x, _, expected = data
    assert bits_of(rp.VAE(**SETTINGS).fit(x, checkpoint=path, resume=True)) == expected
