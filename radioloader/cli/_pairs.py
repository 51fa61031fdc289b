"""Options that map names to values."""

from __future__ import annotations

from radioloader.errors import ConfigError

__all__ = ["pairs"]


def pairs(
    values: list[str], option: str, form: str, example: str, *, twice: str = "", at_last: bool = False
) -> dict[str, str]:
    """What was typed as ``NAME=VALUE``, as a mapping.

    Args:
        values: What was typed.
        option: The option, for messages.
        form: What it takes, such as ``"NAME=SOURCE"``.
        example: One of it.
        twice: Advice for a name that comes twice.
        at_last: Whether the last ``=`` is meant, since names may hold some; else the first one.

    Raises:
        ConfigError: One is not of this form, or a name comes twice.
    """
    found: dict[str, str] = {}
    for value in values:
        name, separator, rest = value.rpartition("=") if at_last else value.partition("=")
        if not separator or not name or not rest:
            raise ConfigError(f"{option} {value!r} is not {form}, such as {option} {example}")
        if name in found:
            raise ConfigError(f"{option} names {name!r} twice{twice}")
        found[name] = rest
    return found
