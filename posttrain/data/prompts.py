"""From a source's row to the row a trainer reads: columns renamed, templates filled in, messages made, a stable name."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from string import Formatter
from typing import TYPE_CHECKING, Any

from posttrain.errors import Mistake

if TYPE_CHECKING:
    from posttrain.recipe.schema import Source

Message = dict[str, Any]


class Template:
    """Text with `{column}` in braces; `{{` and `}}` are braces. Nothing else: no formats, no attributes, no indices.

    Raises:
        Mistake: when made, if the text is anything else.
    """

    def __init__(self, text: str, where: str):
        self.where = where
        self.parts: list[tuple[str, str | None]] = []
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise Mistake(f"{where}: {error}; a brace that is meant as such is written twice, {{{{ or }}}}") from error
        for literal, field, spec, conversion in parsed:
            if field is not None and (field == "" or field.isdigit()):
                raise Mistake(
                    f"{where}: {{{field}}} names no column; a brace that is meant as such is written twice, "
                    "as in \\boxed{{}}"
                )
            if spec or conversion:
                raise Mistake(f"{where}: {{{field}}} is followed by a format; only a column's name goes into braces")
            self.parts.append((literal, field))
        self.columns = list(dict.fromkeys(field for _, field in self.parts if field is not None))

    def fill(self, row: Mapping[str, Any], number: int) -> str:
        """The text for row `number` (counted from 1). Braces in a value stay what they are.

        Raises:
            Mistake: the row lacks a column, or has null there.
        """
        out = []
        for literal, field in self.parts:
            out.append(literal)
            if field is None:
                continue
            if field not in row:
                raise Mistake(f"{self.where}: {missing(field, row)} (row {number})")
            if row[field] is None:
                raise Mistake(f'{self.where}: column "{field}" is empty in row {number}')
            out.append(str(row[field]))
        return "".join(out)


def missing(name: str, row: Mapping[str, Any]) -> str:
    near = get_close_matches(name, row, n=1, cutoff=0.5)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return f'no column "{name}"; the columns are {", ".join(row) or "none"}{hint}'


def rename(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], where: str) -> list[dict[str, Any]]:
    """New rows in which each `new: old` of `columns` is called by its new name. Two may be swapped."""
    gone = set(columns.values()) | set(columns)
    out = []
    for number, row in enumerate(rows, 1):
        for new, old in columns.items():
            if old not in row:
                raise Mistake(f"{where}.columns.{new}: {missing(old, row)} (row {number})")
        kept = {name: value for name, value in row.items() if name not in gone}
        out.append({**kept, **{new: row[old] for new, old in columns.items()}})
    return out


def name_rows(rows: Sequence[Mapping[str, Any]], source: str, where: str) -> list[str]:
    """A stable name for each row: its own `row_id`, else the source's name and a hash of what the row holds.

    Templates play no part, so the same row has the same name in two experiments with different prompts. Equal rows
    are told apart by `#2`, `#3`, ... in order.
    """
    names, seen = [], Counter()
    given: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        own = row.get("row_id")
        if own is not None:
            name = str(own)
            if name in given:
                raise Mistake(f'{where}: rows {given[name]} and {number} have the same row_id "{name}"')
            given[name] = number
        else:
            text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=lambda v: f"{type(v).__name__}:{v}")
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
            seen[digest] += 1
            name = f"{source}:{digest}" + (f"#{seen[digest]}" if seen[digest] > 1 else "")
        names.append(name)
    return names


class Shaper:
    """Makes trainer rows by the settings of one source.

    Raises:
        Mistake: a template that is none, settings that contradict each other, a row that does not fit them.
    """

    def __init__(self, source: Source, where: str):
        self.where = where
        self.chat = source.chat
        self.system = source.system
        if source.system is not None and not source.chat:
            raise Mistake(
                f"{where}.system: a plain-text prompt (chat: false) has no system turn; write it into `prompt`"
            )
        self.prompt = Template(source.prompt, f"{where}.prompt") if source.prompt is not None else None
        self.completion = Template(source.completion, f"{where}.completion") if source.completion is not None else None

    def shape(self, row: Mapping[str, Any], row_id: str, number: int) -> dict[str, Any]:
        """A new row: `row_id`, `prompt`, the answers that the source has (`completion`, `chosen`, `rejected`), and
        every other column as it was."""
        rest = {k: v for k, v in row.items() if k not in ("row_id", "prompt")}
        prompt = self._prompt(row, rest, number)
        if self.completion is not None:
            rest["completion"] = self.completion.fill(row, number)
        for name in ("completion", "chosen", "rejected"):
            if rest.get(name) is not None:
                rest[name] = self._answer(rest[name], prompt, name, number)
        return {"row_id": row_id, "prompt": prompt, **rest}

    def _prompt(self, row: Mapping[str, Any], rest: dict[str, Any], number: int) -> str | list[Message]:
        if self.prompt is not None:
            given: Any = self.prompt.fill(row, number)
        elif row.get("prompt") is not None:
            given = row["prompt"]
        elif row.get("messages") is not None and self.chat:
            given, rest["completion"] = self._split(rest.pop("messages"), number)
        else:
            raise Mistake(
                f"{self.where}: row {number} has no `prompt`; write a template ({self.where}.prompt: "
                f'"... {{column}} ...") or map a column ({self.where}.columns.prompt). Its columns are '
                f"{', '.join(row) or 'none'}"
            )
        if isinstance(given, str):
            if not self.chat:
                return given
            turns: list[Message] = [{"role": "user", "content": given}]
        else:
            turns = self._messages(given, "prompt", number)
            if not self.chat:
                raise Mistake(f"{self.where}: row {number} has messages as its prompt, and chat is false")
            if turns[-1]["role"] == "assistant":
                raise Mistake(f"{self.where}: the prompt of row {number} ends with an assistant turn, not before it")
        if self.system is not None:
            if turns[0]["role"] == "system":
                raise Mistake(f"{self.where}.system: the prompt of row {number} has a system turn of its own")
            turns = [{"role": "system", "content": self.system}, *turns]
        return turns

    def _split(self, messages: Any, number: int) -> tuple[list[Message], list[Message]]:
        """A whole conversation: what comes before its last turn, which must be the assistant's, and that turn."""
        turns = self._messages(messages, "messages", number)
        if turns[-1]["role"] != "assistant" or len(turns) < 2:
            raise Mistake(f"{self.where}: the messages of row {number} do not end with an assistant's answer")
        return turns[:-1], turns[-1:]

    def _answer(self, given: Any, prompt: str | list[Message], name: str, number: int) -> str | list[Message]:
        if isinstance(prompt, str):
            if not isinstance(given, str):
                raise Mistake(f"{self.where}: {name} of row {number} must be text, as the prompt is (chat: false)")
            return given
        if isinstance(given, str):
            return [{"role": "assistant", "content": given}]
        turns = self._messages(given, name, number)
        # Preference data often repeats the whole conversation in both answers.
        said = prompt[1:] if self.system is not None else prompt
        for opening in (prompt, said):
            if len(turns) > len(opening) and turns[: len(opening)] == opening:
                turns = turns[len(opening) :]
                break
        if turns[0]["role"] != "assistant":
            raise Mistake(
                f"{self.where}: {name} of row {number} starts with a {turns[0]['role']} turn that the prompt does not "
                "have"
            )
        return turns

    def _messages(self, given: Any, name: str, number: int) -> list[Message]:
        if not isinstance(given, (list, tuple)) or not given:
            raise Mistake(f"{self.where}: {name} of row {number} must be text or a list of messages")
        turns = []
        for turn in given:
            if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str) or "content" not in turn:
                raise Mistake(f"{self.where}: {name} of row {number}: each message needs `role` and `content`")
            # Arrow fills in the keys that some other row has.
            turns.append({key: value for key, value in turn.items() if value is not None or key == "content"})
        return turns
