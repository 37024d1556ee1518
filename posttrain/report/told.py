"""What rewards and strategies told about a rollout: its rubric criterion by criterion, its scaffold, and whatever else.

A judge's explanation and a policy's text are data: they are kept as texts, and short. `fit` bounds what all rows hold together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from math import ceil, fsum
from typing import Any

from posttrain import keys
from posttrain.report.values import Record, as_dict, clip, number, step_number

MAX_CRITERIA = 100
"""Criteria of one rubric on the page; points are counted over all of them."""
MAX_RUBRICS = 4
"""Rubrics of one rollout."""
MAX_TEXT = 2_000
"""Characters of a criterion, and of why its verdict is what it is."""
MAX_ALSO = 40
"""Lines of what else was told about a rollout."""
MAX_CHARS = 8_000_000
"""Characters of all of it, over all rows of the page."""
LEAST = 250
"""To so many characters texts are cut before whole rubrics are left out."""
OVERHEAD = 24
"""Characters that a criterion takes beside its texts."""
VERDICTS = ("met", "unmet", "failed")
AT_MOST = 0.05
"""`rewards.rubric`'s share of failed verdicts from which it raises, where the recipe gives none."""
WINDOW = 1_000
"""Verdicts over which it counts."""


def of_record(record: Mapping[str, Any], same: bool) -> Record:
    """`rubrics`, `scaffold` and `also` of a rollout's record; empty where there is nothing.

    Args:
        same: what the scaffold shows are criteria of the very rubric that scores.
    """
    extras, info = as_dict(record.get("extras")), as_dict(record.get("info"))
    names = [name for name, value in extras.items() if _is_rubric(name, value)][:MAX_RUBRICS]
    scaffold = _scaffold(info, same)
    rest = {k: v for k, v in extras.items() if k not in names}
    rest |= {k: v for k, v in info.items() if scaffold is None or not k.startswith("scaffold_")}
    return {"rubrics": [_rubric(name, extras[name]) for name in names], "scaffold": scaffold, "also": also(rest)}


def _is_rubric(name: str, value: Any) -> bool:
    ours = name == "rubric" or name.endswith("/rubric")
    return ours and isinstance(as_dict(value).get("criteria"), list)


def _rubric(name: str, value: Record) -> Record:
    every = [_criterion(one) for one in value["criteria"] if isinstance(one, dict)]
    score = number(value.get("score"))
    failed = sum(one["verdict"] == "failed" for one in every)
    # A score beside a failed verdict: the failed criteria are in neither sum.
    counted = [one for one in every if score is None or one["verdict"] != "failed"]
    return {
        "name": clip(name, 200),
        "criteria": every[:MAX_CRITERIA],
        "more": max(0, len(every) - MAX_CRITERIA),
        "score": score,
        "earned": _total(one["points"] for one in counted if one["verdict"] == "met"),
        "possible": _total(one["points"] for one in counted if (one["points"] or 0) > 0),
        "met": sum(one["verdict"] == "met" and (one["points"] or 0) > 0 for one in every),
        "wanted": sum((one["points"] or 0) > 0 for one in every),
        "present": sum(one["verdict"] == "met" and (one["points"] or 0) < 0 for one in every),
        "failed": failed,
    }


def _criterion(one: Record) -> Record:
    verdict, why, tags = one.get("verdict"), short(clip(one.get("why")), MAX_TEXT), one.get("tags")
    verdict = verdict if isinstance(verdict, str) and verdict in VERDICTS else "failed"
    return {
        "text": short(clip(one.get("text")), MAX_TEXT),
        "points": number(one.get("points")),
        "tags": [clip(tag, 80) for tag in tags[:12]] if isinstance(tags, list) else [],
        "by": "code" if one.get("by") == "code" else "judge",
        "verdict": verdict,
        # An endpoint's error may quote the request that it refused.
        "why": _hidden(why) if verdict == "failed" else why,
        "agreement": number(one.get("agreement")),
    }


@lru_cache(maxsize=1_000)
def _hidden(why: str) -> str:
    return keys.hide(why)


def _total(points: Iterator[float | None]) -> float | None:
    try:
        return number(fsum(p for p in points if p is not None))
    except OverflowError:
        return None


def _scaffold(info: Record, same: bool) -> Record | None:
    """What was shown of the scaffold; None where the rollout had none, or its schedule is not that of a training."""
    given = info.get("scaffold_shown")
    if not isinstance(given, list):
        return None
    shown = [i for i in map(step_number, given) if i is not None][:MAX_CRITERIA]
    ratio, tokens, dropped = (number(info.get(f"scaffold_{key}")) for key in ("ratio", "tokens", "dropped"))
    return {"shown": shown, "ratio": ratio, "tokens": tokens, "dropped": dropped, "same": same}


def also(values: Mapping[str, Any]) -> list[list[str]]:
    """(dotted name, text) lines, at most `MAX_ALSO`."""
    out: list[list[str]] = []

    def walk(value: Any, path: str, depth: int) -> None:
        if len(out) > MAX_ALSO:
            return
        if isinstance(value, dict) and value and depth:
            for key, inner in value.items():
                walk(
                    keys.HIDDEN if keys.is_secret(str(key)) else inner,
                    f"{path}.{key}" if path else str(key),
                    depth - 1,
                )
            return
        if isinstance(value, float):
            text = f"{value:.6g}"
        elif isinstance(value, list) and all(not isinstance(v, dict | list) for v in value[:50]):
            text = ", ".join(clip(v, 60) for v in value[:50] if not isinstance(v, dict | list)) + ", …" * (
                len(value) > 50
            )
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        out.append([clip(path, 200), clip(keys.hide(clip(text, 500)), 500)])

    walk(values, "", 3)
    return [*out[:MAX_ALSO], *([["…", "more of it is in the file"]] if len(out) > MAX_ALSO else [])] if values else []


def fit(rows: Sequence[Record], most: int = MAX_CHARS) -> str:
    """Shorten texts, in place, until all rows together are within `most` characters, the longest first; then leave the rubrics of
    whole groups out, evenly. What was done, in words; empty if nothing."""
    limit = MAX_TEXT
    while limit > LEAST and _size(rows) > most:
        limit = max(LEAST, limit // 2)
        for one in _criteria(rows):
            one["text"], one["why"] = short(one["text"], limit), short(one["why"], limit)
        for row in rows:
            row["also"] = [[name, short(text, limit)] for name, text in row.get("also", ())]
    said = f"criteria and explanations are shown to their first {limit:,} characters" * (limit < MAX_TEXT)
    if (size := _size(rows)) <= most:
        return said
    groups: dict[Any, list[Record]] = {}
    for row in rows:
        groups.setdefault((row.get("step"), row.get("row_id")), []).append(row)
    share, seen, left, dropped = most / size, set[str](), most, 0
    for i, group in enumerate(groups.values()):
        if ceil((i + 1) * share) > ceil(i * share) and (wanted := _size(group, set(seen))) <= left:
            left -= wanted
            _size(group, seen)
            continue
        for row in group:
            row["left_out"] = bool(row.get("rubrics") or row.get("also"))
            row["rubrics"], row["also"] = [], []
            dropped += row["left_out"]
    return f"{said}; the rubrics of {dropped:,} rollouts are left out"


def short(text: str, limit: int) -> str:
    """The beginning of a text that is longer."""
    return text if len(text) <= limit else text[: limit - 2].rstrip("… ") + " …"


def _criteria(rows: Sequence[Record]) -> Iterator[Record]:
    return (one for row in rows for rubric in row.get("rubrics", ()) for one in rubric["criteria"])


def _size(rows: Sequence[Record], seen: set[str] | None = None) -> int:
    """Characters as the page holds them: what all samples of a prompt have in common once (`seen`: what is there already)."""
    total, seen = 0, set() if seen is None else seen
    for one in _criteria(rows):
        total += len(one["why"]) + OVERHEAD
        if one["text"] not in seen:
            seen.add(one["text"])
            total += len(one["text"]) + sum(map(len, one["tags"])) + OVERHEAD
    return total + sum(len(name) + len(text) for row in rows for name, text in row.get("also", ()))


def packed(rubrics: Sequence[Record], known: dict[str, int], table: list[Any]) -> list[Record]:
    """Rubrics with [index, verdict, why, agreement] for criteria, and what is alike in all samples added to `table` once."""
    out = []
    for rubric in rubrics:
        lines = []
        for one in rubric["criteria"]:
            alike = [one["text"], one["points"], one["tags"], one["by"]]
            key = json.dumps(alike)
            if key not in known:
                known[key] = len(table)
                table.append(alike)
            lines.append([known[key], VERDICTS.index(one["verdict"]), one["why"], one["agreement"]])
        out.append({**rubric, "criteria": lines})
    return out


# -- what the recipe says of it


def _uses(resolved: Record) -> list[Record]:
    """`with` of each rubric among the recipe's rewards."""
    rewards = resolved.get("rewards")
    found = [as_dict(one) for one in rewards] if isinstance(rewards, list) else []
    return [as_dict(one.get("with")) for one in found if str(one.get("use")).endswith("rubric:Rubric")]


def shows_the_rubric(resolved: Record) -> bool:
    """False where the recipe says that scaffolds show something else than the criteria that score: `scaffold_shown` then counts
    items of another list."""
    strategy = as_dict(as_dict(resolved.get("rollouts")).get("strategy"))
    given = as_dict(strategy.get("with"))
    column = given.get("column", "rubric")
    return given.get("show", "criteria") == "criteria" and all(
        w.get("criteria") is None and w.get("column", "rubric") == column for w in _uses(resolved)
    )


def alarm(resolved: Record) -> float | None:
    """The least `at_most` of the rubrics; None without any."""
    shares = [number(w.get("at_most", AT_MOST)) for w in _uses(resolved)]
    return min((s for s in shares if s is not None), default=None)
