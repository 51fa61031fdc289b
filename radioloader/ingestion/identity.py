"""Ids that do not tell who somebody is."""

from __future__ import annotations

import hashlib
import hmac
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from radioloader.errors import ConfigError

__all__ = ["IdentityWarning", "Pseudonyms", "study_subject", "warn_of_tags"]

_KEY_BYTES = 16


class IdentityWarning(UserWarning):
    """Something is about to be stored that may tell who somebody is."""


def warn_of_tags(keywords: Iterable[str], *, stacklevel: int) -> str:
    """Warn of attributes that are to be kept and may tell who somebody is; returns what was said, or nothing when none may."""
    from radioloader.formats.dicom.tags import identifying

    named = [keyword for keyword in dict.fromkeys(keywords) if identifying(keyword)]
    if not named:
        return ""
    text = (
        f"keep_tags keeps {', '.join(named)}, which may tell who the patients are: the store then holds personal data, readable for all "
        "who can read the store"
    )
    warnings.warn(text, IdentityWarning, stacklevel=stacklevel)
    return text


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Keyed hashes (HMAC-SHA256) of ids: the same in every run with the same key, and without the key neither reversible nor linkable.

    Attributes:
        key: The key; empty: UIDs stay as they are.
    """

    key: bytes = field(default=b"", repr=False)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str] | None) -> Pseudonyms:
        """The pseudonyms of a key file; of None, those that leave UIDs as they are.

        Raises:
            ConfigError: The file cannot be read, or its key is too short to be secret.
        """
        if path is None:
            return cls()
        advice = "make one with: python -c 'import secrets; print(secrets.token_hex(32))' > KEYFILE, and keep it apart from the store"
        try:
            key = Path(path).expanduser().read_bytes().strip()
        except OSError as error:
            raise ConfigError(
                f"pseudonymize={os.fspath(path)!r} cannot be read: {error.strerror or error}; {advice}"
            ) from error
        if len(key) < _KEY_BYTES:
            raise ConfigError(
                f"pseudonymize={os.fspath(path)!r} holds {len(key)} bytes; a key has at least {_KEY_BYTES}; {advice}"
            )
        return cls(key)

    def __bool__(self) -> bool:
        return bool(self.key)

    @property
    def fingerprint(self) -> str:
        """Tells keys apart, and tells nothing of the key; empty where there is none."""
        return self._digest("key", "").hex()[:16] if self.key else ""

    def subject(self, identity: str) -> str:
        """The subject id that stands for somebody: 16 hexadecimal digits."""
        return self._digest("subject", identity).hex()[:16]

    def uid(self, uid: str) -> str:
        """The UID that stands for one: a valid one under 2.25 (PS3.5 B.2); without a key, and where there is none, the same."""
        if not self.key or not uid:
            return uid
        return f"2.25.{int.from_bytes(self._digest('uid', uid)[:16], 'big')}"

    def _digest(self, what: str, text: str) -> bytes:
        return hmac.new(self.key, f"{what}\0{text}".encode(), hashlib.sha256).digest()


def study_subject(studies: list[str]) -> str:
    """The subject id of somebody with these studies (StudyInstanceUIDs), when nothing else may be told: of the first in their order."""
    return f"sub-{hashlib.sha256(min(studies).encode()).hexdigest()[:12]}"
