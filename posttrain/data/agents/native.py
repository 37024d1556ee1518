"""Does a chat template show tools? Asked by rendering a call and its result, not by looking for words in its source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from posttrain.errors import Mistake

STYLES = ("text", "native", "auto")
_TOOL = {
    "type": "function",
    "function": {
        "name": "zq_look_up",
        "description": "zq_description",
        "parameters": {"type": "object", "properties": {"zq_word": {"type": "string"}}, "required": ["zq_word"]},
    },
}
_CALL = {"id": "a", "type": "function", "function": {"name": "zq_look_up", "arguments": {"zq_word": "zq_value"}}}
_ASKED = [
    {"role": "system", "content": "zq_system"},
    {"role": "user", "content": "zq_question"},
    {"role": "assistant", "content": "zq_thought", "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "a", "content": "zq_result"},
    {"role": "assistant", "content": "zq_answer"},
]


def shows_tools(tokenizer: Any) -> bool:
    """True if its template shows everything of such a chat: definitions, a thought beside its call, arguments, the result."""
    try:
        text = tokenizer.apply_chat_template(_ASKED, tools=[_TOOL], tokenize=False)
        bare = tokenizer.apply_chat_template(_ASKED, tokenize=False)
    except Exception:  # a template is code of the model's makers and raises what it likes
        return False
    marks = ("zq_system", "zq_question", "zq_thought", "zq_value", "zq_result", "zq_answer", "zq_description")
    # (The name stands in the definition and in the call.)
    return all(mark in text for mark in marks) and "zq_description" not in bare and bare.count("zq_look_up") > 0


def is_native(style: str, tokenizer: str | None) -> bool:
    """Whether rows leave calls to the template.

    Args:
        tokenizer: hub id or directory; needed for `auto`.

    Raises:
        Mistake: another style; `native` with a template that does not show tools; `auto` without a tokenizer.
    """
    if style not in STYLES:
        raise Mistake(f"style: {style!r} is none of {', '.join(STYLES)}")
    if style == "text":
        return False
    if tokenizer is None:
        if style == "auto":
            raise Mistake("style: auto asks a chat template whether it shows tools; say whose (tokenizer: ID_OR_DIR)")
        return True
    from posttrain import models
    from posttrain.recipe.schema import Model

    shown = shows_tools(models.load_tokenizer(Model.model_validate({"name": tokenizer})))
    if style == "native" and not shown:
        raise Mistake(f"style: the chat template of {tokenizer} does not show tools; take style: text (or auto)")
    return shown


def tools_in(path: str | Path, where: str) -> list[dict[str, Any]]:
    """Definitions from a JSON file: a list of OpenAI's `tools`.

    Raises:
        Mistake: no such file, no JSON, or an entry that defines nothing.
    """
    file = Path(path).expanduser()
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Mistake(f"{where}: {file}: {error.strerror} (looked in {Path.cwd()})") from error
    except (ValueError, RecursionError) as error:
        raise Mistake(f"{where}: {file}: not JSON: {str(error)[:200]}") from error
    if not isinstance(found, list) or not found:
        raise Mistake(f"{where}: {file}: must be a list of definitions")
    seen = set()
    for number, one in enumerate(found):
        function = one.get("function") if isinstance(one, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not isinstance(function.get("parameters", {}), dict):
            raise Mistake(
                f'{where}: {file}, entry {number}: no definition {{"type": "function", "function": {{"name": ...}}}}'
            )
        if name in seen:
            raise Mistake(f'{where}: {file}, entry {number}: "{name}" is defined twice')
        seen.add(name)
    return found
