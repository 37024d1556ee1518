"""Models and items made up by the card's recipe: ln a ~ N(0, .5), b ~ N(0, 1.3), abilities N(0, 1)."""

import numpy as np


def items(draw, count=400):
    return np.exp(draw.normal(0, 0.5, count)), draw.normal(0, 1.3, count)


def respond(draw, theta, a, b):
    """0/1, (models, items)."""
    p = 1 / (1 + np.exp(-a * (np.asarray(theta)[:, None] - b)))
    return (draw.random(p.shape) < p).astype(float)


def variation(x):
    """Normalised total variation of a curve: n/(n-1) · sum |x_t+1 - x_t| / |x_n - x_1|."""
    x = np.asarray(x)
    return len(x) / (len(x) - 1) * np.abs(np.diff(x)).sum() / abs(x[-1] - x[0])
