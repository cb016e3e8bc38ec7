# SPDX-License-Identifier: MIT
"""The fused Adam as an optimizer of PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ._functions import FUNCTIONS

__all__ = ["Adam"]


_OTHERS = {"amsgrad", "foreach", "capturable", "differentiable", "fused"}


def _refuse(others: Any) -> None:
    if others:
        raise TypeError(
            f"Adam has no {', '.join(sorted(others))}: each step is one fused pass for a tensor, and it takes lr, "
            "betas, eps, weight_decay and maximize"
        )


class Adam(torch.optim.Optimizer):
    """Adam with decoupled weight decay, one fused pass per tensor: ``torch.optim.AdamW`` to rounding.

    Parameters
    ----------
    params : iterable of Tensor, of dicts, or of pairs of a name and a tensor
        As ``torch.optim`` takes them; float32 or float64, of any strides.
    lr : float
    betas : pair of float
        Decay of the moments, in [0, 1).
    eps : float
        Added to the root of the second moment.
    weight_decay : float
        Decoupled: ``param -= lr * weight_decay * param``. Zero by default, where AdamW has 0.01.
    maximize : bool
        Whether steps lead uphill, as where :func:`log_joint` has made the gradients; of each a negative copy is made.

    Raises
    ------
    TypeError
        For what else AdamW takes: ``amsgrad`` is another rule, and ``foreach``, ``fused``, ``capturable`` and
        ``differentiable`` choose among forms of it, of which there is one here.
    ValueError
        For a number out of range, or a state of another kind of Adam.
    RuntimeError
        By :meth:`step`, for sparse gradients.

    Notes
    -----
    Kingma and Ba, arXiv 1412.6980; Loshchilov and Hutter, arXiv 1711.05101. ``state_dict`` has the entries of AdamW's,
    each of which loads the other's.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **others: Any,
    ) -> None:
        _refuse(others)
        for name, value in (("learning rate", lr), ("epsilon value", eps), ("weight_decay value", weight_decay)):
            if not float(value) >= 0:
                raise ValueError(f"Invalid {name}: {value}")
        for k, beta in enumerate(betas):
            if not 0 <= float(beta) < 1:
                raise ValueError(f"Invalid beta parameter at index {k}: {beta}")
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "maximize": maximize}
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in ``torch.optim``; a group that asks for what there is not is refused."""
        _refuse(param_group.keys() & _OTHERS)
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a pickle or of ``load_state_dict``; what another rule has made is refused."""
        for group in state["param_groups"]:
            coupled = group["weight_decay"] and not group.get("decoupled_weight_decay", True)
            group.setdefault("maximize", False)
            for name in ("amsgrad", *(("weight_decay",) if coupled else ())):
                if group.get(name):
                    kind = "coupled weight decay" if name == "weight_decay" else name
                    raise ValueError(f"Adam: this state is of an Adam with {kind}, which this one does not have")
        super().__setstate__(state)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step, in place.

        Parameters
        ----------
        closure : callable, optional
            Evaluates the model again and returns the loss.

        Returns
        -------
        object
            The loss of the closure, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = map(float, group["betas"])
            hyper = {
                "lr": float(group["lr"]), "beta1": beta1, "beta2": beta2,
                "eps": group["eps"], "weight_decay": group["weight_decay"],
            }  # fmt: skip
            for param in group["params"]:
                if param.grad is not None:
                    self._update(param, -param.grad if group["maximize"] else param.grad, hyper)
        return loss

    def _update(self, param: Any, grad: Any, hyper: dict[str, float]) -> None:
        if grad.is_sparse:
            raise RuntimeError("Adam does not support sparse gradients, please consider SparseAdam instead")
        state = self.state[param]
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(param), torch.zeros_like(param)
        step = int(state["step"]) + 1
        FUNCTIONS["adam_step"](param, grad, state["exp_avg"], state["exp_avg_sq"], step=step, **hyper)
        state["step"] = step
