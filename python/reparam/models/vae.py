# SPDX-License-Identifier: MIT
"""Variational autoencoders."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import random as rp_random
from .._check import as_choice, as_float, as_int
from ..elbo import ESTIMATORS, elbo
from ..inference.maximize_elbo import EVALUATION, INIT, purpose_key
from ..inference.refine import convert
from ..inference.refine import refine as refine_rows
from ..nn import MLP, GaussianHead
from ..ops.likelihood import ACTIVATIONS
from ..optim import Adam
from .data import as_dtype, as_latent, as_mask, as_real, as_rows
from .likelihoods import Prepared, make_likelihood
from .training import Training

__all__ = ["VAE"]

Array = NDArray[Any]
ROWS_AT_ONCE = 1024  # rows of one evaluation
DRAWS_AT_ONCE = 32_768  # decoder rows of one evaluation


def _chunks(n: int, size: int) -> Any:
    """Slices of n rows with the rows' numbers."""
    return ((slice(k, k + size), np.arange(k, min(k + size, n))) for k in range(0, n, size))


class VAE(Training):
    """Variational autoencoder with a full or diagonal Gaussian posterior.

    ``z ~ N(0, I)``, ``x | z`` by a decoder net, ``q(z | x)`` by an encoder net; both are trained on the ELBO
    (Kingma and Welling, arXiv 1312.6114; Rezende, Mohamed and Wierstra, arXiv 1401.4082).

    Parameters
    ----------
    latent_dim : int
        Size of z.
    hidden : sequence of int
        Widths of the encoder's hidden layers; the decoder has them in reverse. ``()`` is a linear model.
    covariance_type : {"full", "diag"}
        Of the posterior.
    likelihood : {"gaussian", "bernoulli", "binomial"}
        Of the data given z.
    total_count : int, optional
        Trials of each entry, for the binomial.
    noise_scale : float, optional
        Noise of the Gaussian; learned (one for all entries) if None.
    activation : str
        Of the hidden layers, see :class:`reparam.nn.MLP`.
    estimator : {"pathwise"}
        See :func:`reparam.elbo`.
    num_samples : int
        Draws per row and step.
    kl_weight : float
        Weight of the KL term.
    lr : float or callable
        Learning rate of Adam, or a function of the step.
    batch_size, epochs : int
    dtype : {"float32", "float64"}
    key : key
        Everything random follows from it; see :func:`reparam.random.as_key`. A fit has the same bits at any number of
        our threads, for one number of BLAS's: the order in which BLAS sums a large product depends on that.

    Attributes
    ----------
    history_ : dict of ndarray
        ``step``, ``epoch``, ``elbo`` (mean per row over the epoch's minibatches, the KL term times ``kl_weight``) and
        ``validation_elbo`` (the ELBO itself; NaN without validation data), one float64 entry an epoch.
    noise_scale_ : float
        Of the Gaussian likelihood.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    """

    def __init__(  # noqa: PLR0913
        self,
        latent_dim: int,
        *,
        hidden: Any = (256,),
        covariance_type: str = "full",
        likelihood: str = "gaussian",
        total_count: int | None = None,
        noise_scale: float | None = None,
        activation: str = "tanh",
        estimator: str = "pathwise",
        num_samples: int = 1,
        kl_weight: float = 1.0,
        lr: Any = 1e-3,
        batch_size: int = 128,
        epochs: int = 200,
        dtype: Any = "float32",
        key: Any = 0,
    ) -> None:
        self.latent_dim = as_int("VAE: latent_dim", latent_dim, 1)
        if not np.iterable(hidden):
            raise TypeError(f"VAE: hidden must be a sequence of integers >= 1, got {hidden!r}")
        self.hidden = tuple(as_int("VAE: hidden", n, 1) for n in hidden)
        self.covariance_type = as_choice("VAE: covariance_type", covariance_type, ("full", "diag"))
        self.likelihood = as_choice("VAE: likelihood", likelihood, ("gaussian", "bernoulli", "binomial"))
        self._likelihood = make_likelihood(likelihood, total_count, noise_scale)
        self.total_count = None if total_count is None else int(total_count)
        self.noise_scale = None if noise_scale is None else float(noise_scale)
        self.activation = as_choice("VAE: activation", activation, ACTIVATIONS)
        self.estimator = as_choice("VAE: estimator", estimator, ESTIMATORS)
        self.num_samples = as_int("VAE: num_samples", num_samples, 1)
        self.kl_weight = as_float("VAE: kl_weight", kl_weight, 0, above=True)
        self.lr = lr if callable(lr) else as_float("VAE: lr", lr, 0)
        self.batch_size = as_int("VAE: batch_size", batch_size, 1)
        self.epochs = as_int("VAE: epochs", epochs, 1)
        self.dtype = as_dtype("VAE: dtype", dtype)
        self.key = rp_random.as_key(key)
        self._optimizer: Adam | None = None

    def _build(self, data_dim: int, count: int | None = None) -> None:
        """Nets over one flat buffer: encoder, decoder, theta of the likelihood; a file tells its ``count``."""
        self._head = GaussianHead(self.latent_dim, self.covariance_type)
        wide = (data_dim, *self.hidden, self._head.features)
        narrow = (self.latent_dim, *reversed(self.hidden), data_dim)
        n_encoder, n_decoder = MLP.count(wide), MLP.count(narrow)
        size = n_encoder + n_decoder + self._likelihood.theta_size
        if count is not None and count != size:
            raise ValueError(f"this model has {size} parameters, the file has {count}")
        self._params = np.zeros(size, self.dtype)
        self._grads = np.zeros_like(self._params)
        cut = np.cumsum([n_encoder, n_decoder])
        key = purpose_key(self.key, INIT, 0)
        settings = {"activation": self.activation, "dtype": self.dtype}
        parts = np.split(self._params, cut)
        self._encoder = MLP(wide, key=rp_random.fold_in(key, 0), params=parts[0], **settings)
        self._decoder = MLP(narrow, key=rp_random.fold_in(key, 1), params=parts[1], **settings)
        self._head.start_at_identity(self._encoder)
        self._theta = parts[2]
        self._encoder_grads, self._decoder_grads, self._theta_grads = np.split(self._grads, cut)
        self._optimizer = Adam(self._params, lr=self.lr)
        self._mean = np.zeros(data_dim, self.dtype)
        self._step = 0

    def _data(self, x: Any, name: str = "x", data_dim: int | None = None) -> Array:
        """Data as a finite array [n, data_dim] of the model's dtype that the likelihood accepts."""
        array = as_rows(f"VAE: {name}", x, self.dtype, data_dim)
        self._likelihood.check(f"VAE: {name}", array)
        return array

    def _prepared(self, x: Any, observed: Any = None) -> Prepared:
        """Checked data rows of a fitted model."""
        self._check_fitted()
        if observed is None:
            return self._likelihood.prepare(self._data(x, data_dim=len(self._mean)), None)
        array = as_real("VAE: x", x)
        mask = as_mask("VAE: observed", observed, array.shape, self.dtype)
        seen = np.where(mask == 1, array, 0)  # an unobserved entry may hold anything, NaN too
        return self._likelihood.prepare(self._data(seen, data_dim=len(self._mean)), mask)

    def _encode(self, data: Prepared, grads: Array | None = None) -> tuple[Any, Any]:
        """q(z | x), and the pullback of its gradient to the encoder; unobserved entries take their training mean."""
        x = data.x if data.mask is None else data.x + (1 - data.mask) * self._mean
        features, backprop = self._encoder(self._likelihood.scale_input(x), grads)
        q, pullback = self._head(features)
        return q, lambda grad: backprop(pullback(grad), input_gradient=False)

    def _joint(self, data: Prepared, *, kl_weight: float = 1.0, learn: bool = False) -> Any:
        """``log p(x | z)/kl_weight + log p(z)`` for :func:`reparam.elbo`; ``learn`` collects theta's gradient too."""
        weight = np.asarray(1 / kl_weight, self.dtype)

        def log_joint(value: Array) -> tuple[Array, Any]:
            output, backprop = self._decoder(value, self._decoder_grads if learn else None)
            log_likelihood, pullback = self._likelihood.log_prob(output, data, self._theta)
            squares = np.einsum("...i,...i->...", value, value)
            log_2pi = np.asarray(value.shape[-1] * np.log(2 * np.pi), value.dtype)
            prior = np.asarray(-0.5, value.dtype) * (squares + log_2pi)

            def pull(weights: Array) -> Array:
                ct_output, ct_theta = pullback(weights * weight)
                if learn:
                    self._theta_grads[...] = ct_theta
                ct_value, _ = backprop(ct_output, parameter_gradient=learn)
                result: Array = ct_value - weights[..., None] * value
                return result

            return log_likelihood * weight + prior, pull

        return log_joint

    def log_joint(self, x: Any, observed: Any = None) -> Any:
        """``log p(x, z)`` of these rows with theta fixed, as :func:`reparam.elbo` takes it.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        observed : array of 0 and 1, shape (n, data_dim), optional
            Entries that were not seen (0) drop out of ``log p(x | z)``.

        Returns
        -------
        callable
            ``value (S, n, latent_dim) -> (log_prob (S, n), pullback)``.
        """
        return self._joint(self._prepared(x, observed))

    def posterior(self, x: Any, *, observed: Any = None, refine: int = 0, covariance_type: str | None = None) -> Any:
        """The approximate posterior of z for each row.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        observed : array of 0 and 1, optional
            Which entries were seen.
        refine : int
            Steps of natural-gradient ascent on each row's own ELBO from the encoder's q, theta fixed; 100 suffice.
        covariance_type : {"full", "diag"}, optional
            That of the model by default.

        Returns
        -------
        MultivariateNormal or MultivariateNormalDiag
            Batch shape ``(n,)``.
        """
        steps = as_int("VAE: refine", refine)
        covariance_type = self.covariance_type if covariance_type is None else covariance_type
        kind = as_choice("VAE: covariance_type", covariance_type, ("full", "diag"))
        data = self._prepared(x, observed)
        q = convert(self._encode(data)[0], kind)
        key, parts = purpose_key(self.key, EVALUATION, 2**32), []
        for rows, index in _chunks(len(data.x), ROWS_AT_ONCE):
            part, joint = type(q).trusted(q.loc[rows], q._scale[rows]), self._joint(data.rows(rows))
            parts.append(refine_rows(part, joint, steps=steps, key=key, index=index))
        return type(q).trusted(np.concatenate([p.loc for p in parts]), np.concatenate([p._scale for p in parts]))

    def elbo(self, x: Any, *, key: Any, num_samples: int | None = None) -> Array:
        """The ELBO of each row, shape (n,); row i draws from noise stream i."""
        draws = self.num_samples if num_samples is None else as_int("VAE: num_samples", num_samples, 1)
        values = [e.value for e in self._estimates(self._prepared(x), rp_random.as_key(key), draws)]
        return np.concatenate(values)

    def _estimates(self, data: Prepared, key: int, draws: int) -> Any:
        """ELBO estimates of chunks of rows, without gradients."""
        for rows, index in _chunks(len(data.x), max(1, min(ROWS_AT_ONCE, DRAWS_AT_ONCE // draws))):
            part = data.rows(rows)
            yield elbo(self._encode(part)[0], self._joint(part), key=key, num_samples=draws, index=index, grad=False)

    def log_likelihood(self, x: Any, *, num_samples: int = 1000, key: Any) -> Array:
        """The importance-weighted bound on log p(x) of each row, shape (n,); tight as ``num_samples`` grows.

        Burda, Grosse and Salakhutdinov, arXiv 1509.00519.
        """
        draws = as_int("VAE: num_samples", num_samples, 1)
        values = []
        for estimate in self._estimates(self._prepared(x), rp_random.as_key(key), draws):
            w = estimate.log_weights.astype(np.float64)
            top = w.max(0)
            values.append((top + np.log(np.exp(w - top).mean(0))).astype(self.dtype))
        return np.concatenate(values)

    def transform(self, x: Any) -> Array:
        """Posterior means, shape (n, latent_dim)."""
        return np.array(self.posterior(x).mean)

    def _output(self, z: Any) -> Array:
        self._check_fitted()
        return self._decoder(as_latent("VAE: z", z, self.dtype, self.latent_dim))[0]

    def decode(self, z: Any) -> Array:
        """Mean of x given z, shape (..., data_dim)."""
        return self._likelihood.mean(self._output(z))

    def generate(self, z: Any, *, key: Any) -> Array:
        """A draw of x given z, shape (..., data_dim)."""
        rng = np.random.Generator(np.random.Philox(key=rp_random.as_key(key)))
        return self._likelihood.draw(self._output(z), self._theta, rng)

    def sample(self, n: int, *, key: Any, return_latent: bool = False) -> Any:
        """Draw n rows of x from the model; with ``return_latent``, the pair (x, z)."""
        number = rp_random.as_key(key)
        z = rp_random.normal((as_int("VAE: n", n), self.latent_dim), key=number, dtype=self.dtype)
        x = self.generate(z, key=rp_random.fold_in(number, 0))
        return (x, z) if return_latent else x

    def reconstruct(self, x: Any) -> Array:
        """Mean of x given the posterior mean of z."""
        return self.decode(self.transform(x))

    @property
    def noise_scale_(self) -> float:
        """Noise scale of the Gaussian likelihood."""
        self._check_fitted()
        if self.likelihood != "gaussian":
            raise AttributeError(f"noise_scale_ belongs to likelihood='gaussian', this model has {self.likelihood!r}")
        return self._likelihood.sigma(self._theta)  # type: ignore[union-attr]
