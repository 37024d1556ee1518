"""Every random stream of a run comes from one recorded seed."""

from __future__ import annotations

import hashlib


def derive(run_seed: int, *names: str | int) -> int:
    """A seed in [0, 2**53) for the stream called `names`; equal names give equal seeds, others independent ones.

    53 bits survive JSON and every engine's own seed type.
    """
    text = "\x1f".join([str(int(run_seed)), *(f"{type(n).__name__}:{n}" for n in names)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 11
