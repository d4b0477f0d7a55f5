"""Words that a person sees, always in both languages.

A :class:`Text` cannot be made without both, so no message can be forgotten in one of them, and a saved
report can be shown in either language long after the check that wrote it has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Literal

import msgspec

Lang = Literal["en", "zh"]
LANGS: tuple[Lang, ...] = ("en", "zh")


class Text(msgspec.Struct, frozen=True):
    """One message in English and Chinese.

    ``fill`` puts values into ``{name}`` fields of both; the values themselves are never interpreted.
    """

    en: str
    zh: str

    def fill(self, **values: object) -> Text:
        """Both texts with their ``{name}`` fields replaced. Raises KeyError when a field has no value."""
        localised: dict[Lang, dict[str, object]] = {
            lang: {k: v.to(lang) if isinstance(v, Text) else v for k, v in values.items()} for lang in LANGS
        }
        return Text(self.en.format(**localised["en"]), self.zh.format(**localised["zh"]))

    def to(self, lang: Lang) -> str:
        return self.zh if lang == "zh" else self.en


def plain(value: str) -> Text:
    """A value that reads the same in both languages (a number, a path, a host name)."""
    return Text(value, value)


def joined(texts: Iterable[Text]) -> Text:
    """Some texts one after another."""
    every = list(texts)
    return Text("; ".join(t.en for t in every), "；".join(t.zh for t in every))


def default_lang(environ: dict[str, str] | None = None) -> Lang:
    """The language of the locale (LC_ALL, then LC_MESSAGES, then LANG): ``zh`` for Chinese, else ``en``."""
    env = os.environ if environ is None else environ
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        value = env.get(name, "")
        if value:
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"
