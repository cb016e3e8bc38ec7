# SPDX-License-Identifier: MIT
"""Variational autoencoders."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import random as rp_random
from .._arrays import copy_of, device_of, move, namespace_of
from .._check import as_choice, as_float, as_int, as_key
from ..elbo import ESTIMATORS, elbo
from ..inference.data import as_dtype, as_mask, as_real, as_rows, as_widths, chunks
from ..inference.map import map_estimate as map_rows
from ..inference.maximize_elbo import EVALUATION, INIT, purpose_key, refuse_kl_weight
from ..inference.refine import DRAWS, convert
from ..inference.refine import refine as refine_rows
from ..nn import MLP, GaussianHead
from ..ops.likelihood import ACTIVATIONS
from ..optim import Adam
from .evidence import DRAWS_AT_ONCE, ROWS_AT_ONCE, Evidence
from .generation import Generation
from .likelihoods import Prepared, make_likelihood
from .training import Training

__all__ = ["VAE"]

Array = NDArray[Any]


class VAE(Training, Generation, Evidence):
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
    estimator : {"pathwise", "stl", "iwae", "dreg"}
        Of the gradient, see :func:`reparam.elbo`. "pathwise" and "stl" train on the ELBO, "iwae" and "dreg" on the
        importance-weighted bound of ``num_samples`` draws.
    num_samples : int
        Draws per row and step.
    kl_weight : float
        Weight of the ELBO's KL term; 1 for "iwae" and "dreg", whose bound has no such term.
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
        ``step``, ``epoch``, ``elbo`` (what was maximized, mean per row over the epoch's minibatches) and
        ``validation_elbo`` (the ELBO itself; NaN without validation data), one float64 entry an epoch.
    noise_scale_ : float
        Of the Gaussian likelihood.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what came and what was expected.
    AttributeError
        If an argument is assigned to later: nets, optimizer and files follow from the arguments.
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
        self.hidden = as_widths("VAE: hidden", hidden)
        self.covariance_type = as_choice("VAE: covariance_type", covariance_type, ("full", "diag"))
        self.likelihood = as_choice("VAE: likelihood", likelihood, ("gaussian", "bernoulli", "binomial"))
        self._likelihood = make_likelihood(likelihood, total_count, noise_scale)
        self.total_count = None if total_count is None else int(total_count)
        self.noise_scale = None if noise_scale is None else float(noise_scale)
        self.activation = as_choice("VAE: activation", activation, ACTIVATIONS)
        self.estimator = as_choice("VAE: estimator", estimator, ESTIMATORS)
        self.num_samples = as_int("VAE: num_samples", num_samples, 1)
        self.kl_weight = as_float("VAE: kl_weight", kl_weight, 0, above=True)
        refuse_kl_weight("VAE", self.estimator, self.kl_weight)
        self.lr = lr if callable(lr) else as_float("VAE: lr", lr, 0)
        self.batch_size = as_int("VAE: batch_size", batch_size, 1)
        self.epochs = as_int("VAE: epochs", epochs, 1)
        self.dtype = as_dtype("VAE: dtype", dtype)
        self.key = as_key(key, "VAE: key")
        self._optimizer: Adam | None = None

    def _build(self, data_dim: int, count: int | None = None, like: Any = None) -> None:
        """Nets over one flat buffer: encoder, decoder, theta of the likelihood; a file tells its ``count``.

        All lies where the array ``like`` does.
        """
        self._head = GaussianHead(self.latent_dim, self.covariance_type)
        wide = (data_dim, *self.hidden, self._head.features)
        narrow = (self.latent_dim, *reversed(self.hidden), data_dim)
        n_encoder, n_decoder = MLP.count(wide), MLP.count(narrow)
        size = n_encoder + n_decoder + self._likelihood.theta_size
        if count is not None and count != size:
            raise ValueError(f"this model has {size} parameters, the file has {count}")
        with device_of(like):
            self._params, self._grads = (namespace_of(like).zeros(size, self.dtype) for _ in range(2))
            self._mean = namespace_of(like).zeros(data_dim, self.dtype)
        cut = (slice(n_encoder), slice(n_encoder, n_encoder + n_decoder), slice(n_encoder + n_decoder, None))
        key = purpose_key(self.key, INIT, 0)
        settings = {"activation": self.activation, "dtype": self.dtype}
        parts = [self._params[at] for at in cut]
        self._encoder = MLP(wide, key=rp_random.fold_in(key, 0), params=parts[0], **settings)
        self._decoder = MLP(narrow, key=rp_random.fold_in(key, 1), params=parts[1], **settings)
        self._head.start_at_identity(self._encoder)
        self._theta = parts[2]
        self._encoder_grads, self._decoder_grads, self._theta_grads = (self._grads[at] for at in cut)
        self._optimizer = Adam(self._params, lr=self.lr)
        self._step = 0

    def _data(self, x: Any, name: str = "x", data_dim: int | None = None) -> Array:
        """Data as a finite array [n, data_dim] of the model's dtype that the likelihood accepts."""
        array = as_rows(f"VAE: {name}", x, self.dtype, data_dim)
        with device_of(array):
            self._likelihood.check(f"VAE: {name}", array)
        return array

    def _prepared(self, x: Any, observed: Any = None) -> Prepared:
        """Checked data rows of a fitted model."""
        self._check_fitted()
        mask, array = None, as_real("VAE: x", x)
        with device_of(array):
            if observed is not None:
                mask = move(as_mask("VAE: observed", observed, array.shape, self.dtype), array)
                array = np.where(mask == 1, array, 0)  # an unobserved entry may hold anything, NaN too
            rows = self._data(array, data_dim=len(self._mean))
            self._follow(rows)
            return self._likelihood.prepare(rows, mask)

    def _encode(self, data: Prepared, grads: Array | None = None) -> tuple[Any, Any]:
        """q(z | x), and the pullback of its gradient to the encoder; unobserved entries take their training mean."""
        x = data.x if data.mask is None else data.x + (1 - data.mask) * self._mean
        features, backprop = self._encoder(self._likelihood.scale_input(x), grads)
        q, pullback = self._head.encode(features)
        return q, lambda grad: backprop(pullback(grad), input_gradient=False)

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

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        steps = as_int("VAE: refine", refine)
        covariance_type = self.covariance_type if covariance_type is None else covariance_type
        kind = as_choice("VAE: covariance_type", covariance_type, ("full", "diag"))
        return self._refined(self._prepared(x, observed), kind, steps)

    def map_estimate(self, x: Any, *, observed: Any = None) -> Array:
        """The most probable z of each row: the mode of ``p(x, z)`` that is uphill from q's mean.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        observed : array of 0 and 1, optional
            Which entries were seen.

        Returns
        -------
        ndarray, shape (n, latent_dim)
            A RuntimeWarning counts the rows in which :func:`reparam.map_estimate` has not converged.

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        data = self._prepared(x, observed)
        with device_of(data.x):
            start = self._encode(data)[0].distribution().loc
            found = [map_rows(self._joint(data.rows(k)), start[k]) for k, _ in chunks(len(start), ROWS_AT_ONCE)]
            failed = int(np.count_nonzero(~np.concatenate([each.converged for each in found])))
            modes = np.concatenate([each.value for each in found])
        if failed:
            told = f"VAE: map_estimate: {failed} of {len(start)} rows did not converge"
            warnings.warn(told, RuntimeWarning, stacklevel=2)
        return modes

    def _refined(self, data: Prepared, kind: str, steps: int, num_samples: int = DRAWS) -> Any:
        """The posterior of :meth:`posterior`, by steps of so many draws."""
        with device_of(data.x):
            q = convert(self._encode(data)[0].distribution(), kind)
            key, parts = purpose_key(self.key, EVALUATION, 2**32), []
            for rows, index in chunks(len(data.x), ROWS_AT_ONCE):
                part, joint = type(q).trusted(q.loc[rows], q._scale[rows]), self._joint(data.rows(rows))
                parts.append(refine_rows(part, joint, steps=steps, key=key, num_samples=num_samples, index=index))
            return type(q).trusted(np.concatenate([p.loc for p in parts]), np.concatenate([p._scale for p in parts]))

    def elbo(self, x: Any, *, key: Any, num_samples: int | None = None) -> Array:
        """Estimate the ELBO of each row: ``mean_s log p(x, z_s)`` plus the entropy of q; ``kl_weight`` is not in it.

        Parameters
        ----------
        x : array, shape (n, data_dim)
        key : key
            Row i draws from its noise stream i.
        num_samples : int, optional
            Draws per row; that of the model by default.

        Returns
        -------
        ndarray, shape (n,)
            In the model's dtype. Kingma and Welling, arXiv 1312.6114.

        Raises
        ------
        TypeError, ValueError
            For bad arguments, or if the model is not fitted.
        """
        draws = self.num_samples if num_samples is None else as_int("VAE: num_samples", num_samples, 1)
        data, number = self._prepared(x), as_key(key, "VAE: key")
        with device_of(data.x):
            return np.concatenate([e.value for e in self._estimates(data, number, draws)])

    def _estimates(self, data: Prepared, key: int, draws: int) -> Any:
        """ELBO estimates of chunks of rows, without gradients."""
        for rows, index in chunks(len(data.x), max(1, min(ROWS_AT_ONCE, DRAWS_AT_ONCE // draws))):
            part = data.rows(rows)
            q, joint = self._encode(part)[0].distribution(), self._joint(part)
            yield elbo(q, joint, key=key, num_samples=draws, index=index, grad=False)

    def transform(self, x: Any) -> Array:
        """Posterior means of z.

        Parameters
        ----------
        x : array, shape (n, data_dim)

        Returns
        -------
        ndarray, shape (n, latent_dim)

        Raises
        ------
        TypeError, ValueError
            For bad data, or if the model is not fitted.
        """
        mean: Array = copy_of(self.posterior(x).mean)
        return mean
