"""Item parameters from the answers of many models: penalised maximum likelihood of the 2PL.

Maximised over abilities, difficulties and log discriminations together, with ability ~ N(0, 1), b ~ N(0, 3),
ln a ~ N(0, 0.5) as penalties. a > 0 fixes the sign, standardising the abilities over the calibration models the scale
(both are free in a bare 2PL). Missing answers have weight 0; k samples behind a share weigh k.

arXiv 2509.11106 fits the same model with hierarchical priors, by Markov chain Monte Carlo in its text and by variational
inference in its code; here their means and widths are fixed and the mode is taken. On simulated tables it recovers as much
as py-irt's hierarchical model (`scripts/bench_adaptive.py`). As there, one dimension, one benchmark a bank.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import expit

from posttrain.evaluation.adaptive.model import Floats


@dataclass(frozen=True, slots=True)
class Settings:
    """Standard deviations of the penalties, and when to stop."""

    ability_sd: float = 1.0
    b_sd: float = 3.0
    log_a_sd: float = 0.5
    iterations: int = 2000
    tolerance: float = 1e-7
    """Largest slope of the mean loss an answer at which the fit is done."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Fit:
    """m models, n items."""

    ability: Floats
    """(m,), mean 0 and standard deviation 1."""
    a: Floats
    """(n,)"""
    b: Floats
    """(n,)"""
    loss: float
    """Mean negative log-likelihood an answer, in nats."""
    converged: bool
    iterations: int
    settings: Settings = field(default_factory=Settings)


def objective(x: Floats, shares: Floats, weights: Floats, settings: Settings) -> tuple[float, Floats]:
    """Penalised negative log-likelihood and its slope, each over the sum of weights.

    Args:
        x: abilities (m), difficulties (n), log discriminations (n), one after the other.
        shares: (m, n), anything where the weight is 0.
        weights: samples behind each share, (m, n).
    """
    m, n = shares.shape
    theta, b, log_a = x[:m], x[m : m + n], x[m + n :]
    a = np.exp(log_a)
    apart = theta[:, None] - b
    z = a * apart
    total = float(weights.sum())
    loss = float(np.sum(weights * (np.logaddexp(0.0, z) - shares * z)))
    penalty = (
        float(theta @ theta) / settings.ability_sd**2
        + float(b @ b) / settings.b_sd**2
        + float(log_a @ log_a) / settings.log_a_sd**2
    ) / 2
    rest = weights * (expit(z) - shares)
    slope = np.concatenate(
        [
            rest @ a + theta / settings.ability_sd**2,
            -a * rest.sum(0) + b / settings.b_sd**2,
            a * np.sum(rest * apart, 0) + log_a / settings.log_a_sd**2,
        ]
    )
    return (loss + penalty) / total, slope / total


def fit(responses: ArrayLike, samples: ArrayLike = 1, settings: Settings | None = None) -> Fit:
    """Fit m models × n items.

    Args:
        responses: share of right answers, 0 to 1, (m, n); nan = not asked.
        samples: samples behind each share, (m, n) or one number.

    Raises:
        ValueError: fewer than two models, no items, a value outside [0, 1], a model or an item without any answer, or
            models that all answered alike (then there is no scale).
    """
    settings = settings or Settings()
    shares = np.array(responses, dtype=float)
    if shares.ndim != 2 or shares.shape[0] < 2 or shares.shape[1] < 1:
        raise ValueError(f"responses should be at least 2 models × 1 item, not {shares.shape}")
    there = ~np.isnan(shares)
    if not np.all((shares[there] >= 0) & (shares[there] <= 1)):
        raise ValueError("responses should be between 0 and 1")
    if not there.any(1).all() or not there.any(0).all():
        raise ValueError("every model and every item needs an answer")
    weights = np.where(there, np.broadcast_to(np.asarray(samples, dtype=float), shares.shape), 0.0)
    shares = np.where(there, shares, 0.0)
    found = minimize(
        objective,
        _start(shares, weights),
        args=(shares, weights, settings),
        jac=True,
        method="L-BFGS-B",
        options={
            "maxiter": settings.iterations,
            "maxfun": 2 * settings.iterations,
            "gtol": settings.tolerance,
            "ftol": 0,
        },
    )
    m, n = shares.shape
    theta, b, a = found.x[:m], found.x[m : m + n], np.exp(found.x[m + n :])
    centre, width = float(theta.mean()), float(theta.std())
    if width < 1e-6:
        raise ValueError("all models have the same ability: answers that do not tell models apart give no scale")
    z = a * (theta[:, None] - b)
    loss = float(np.sum(weights * (np.logaddexp(0.0, z) - shares * z)) / weights.sum())
    converged = float(np.abs(found.jac).max()) <= 10 * settings.tolerance
    return Fit((theta - centre) / width, a * width, (b - centre) / width, loss, converged, int(found.nit), settings)


def _start(shares: Floats, weights: Floats) -> Floats:
    """Log odds of models and items, shrunk by one answer of each kind; every item discriminates alike."""

    def odds(axis: int) -> Floats:
        right = np.sum(weights * shares, axis)
        return np.log((right + 1) / (np.sum(weights, axis) - right + 1))

    theta = odds(1)
    spread = theta.std() or 1.0
    return np.concatenate([(theta - theta.mean()) / spread, -odds(0), np.zeros(shares.shape[1])])
