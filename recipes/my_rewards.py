"""A reward of one's own: any function with these arguments. Named in a recipe as `my_rewards.py:brevity`."""


def brevity(completion_ids, *, target, **columns):
    """1 for an empty completion, falling evenly to 0 at `target` tokens."""
    return [max(0.0, 1 - len(ids) / target) for ids in completion_ids]
