"""TRL imports all of vLLM wherever it is installed, three seconds at each start, for a generation that no recipe can ask for."""

from __future__ import annotations


def without_vllm() -> None:
    """Tell TRL, in this process, that there is no vLLM. To be called before a TRL trainer is imported; of no effect after it.

    Only for trainers of ours: they sample through our engines, which import vLLM themselves when they are asked for.
    """
    from trl import import_utils

    import_utils.is_vllm_available = lambda min_version=None: False  # its modules take it from there by name
