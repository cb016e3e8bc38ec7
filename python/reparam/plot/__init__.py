# SPDX-License-Identifier: MIT
"""Figures: ELBOs and their gaps, posterior ellipses, mixtures, maps of the latent space, images and completions.

Every function draws into ``ax`` (a new one if it is None) and returns it. Matplotlib is imported at the first call.
"""

from .curves import elbo_curve, elbo_trace, gap_bars
from .images import digit_grid, reconstructions
from .page import COLORS, STYLE
from .planes import latent_map, mixture_components, posterior_ellipses

__all__ = [
    "COLORS",
    "STYLE",
    "digit_grid",
    "elbo_curve",
    "elbo_trace",
    "gap_bars",
    "latent_map",
    "mixture_components",
    "posterior_ellipses",
    "reconstructions",
]
