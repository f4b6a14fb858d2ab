"""What the window remembers between runs: theme, sizes, columns. One INI file below ~/.config."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from PySide6.QtCore import QByteArray, QSettings

Theme = Literal["system", "light", "dark"]
THEMES: tuple[Theme, ...] = ("system", "light", "dark")
VERSION = 1


class _Store(Protocol):
    def value(self, key: str, default: Any = None, kind: Any = None, /) -> Any: ...
    def setValue(self, key: str, value: Any, /) -> None: ...


class _Memory:
    """Remembers nothing beyond the process. (QSettings on /dev/null would replace the device by a file.)"""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def value(self, key: str, default: Any = None, _kind: Any = None, /) -> Any:
        return self._values.get(key, default)

    def setValue(self, key: str, value: Any, /) -> None:
        self._values[key] = value


class Preferences:
    """A typed face on QSettings. *path*: keep it somewhere else (tests); not *keep*: forget it with the process."""

    def __init__(self, path: str | None = None, *, keep: bool = True) -> None:
        self._store: _Store = _Memory() if not keep else (
            QSettings(path, QSettings.Format.IniFormat) if path else
            QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "slipway", "window"))
        if self._store.value("version", 0, int) != VERSION:
            self._store.setValue("version", VERSION)

    @property
    def theme(self) -> Theme:
        """"system" follows the desktop's colour scheme."""
        value = str(self._store.value("theme", "system"))
        return value if value in THEMES else "system"

    @theme.setter
    def theme(self, value: Theme) -> None:
        self._store.setValue("theme", value)

    def layout(self, key: str) -> QByteArray | None:
        """The saved geometry or header state of *key*; None when there is none."""
        value = self._store.value(f"layout/{key}")
        return value if isinstance(value, QByteArray) and not value.isEmpty() else None

    def keep_layout(self, key: str, state: QByteArray) -> None:
        """Remember a geometry or header state."""
        self._store.setValue(f"layout/{key}", state)

    def flag(self, key: str, default: bool) -> bool:
        """A remembered switch, such as wrapping of logs."""
        return bool(self._store.value(f"flag/{key}", default, bool))

    def keep_flag(self, key: str, value: bool) -> None:
        """Remember a switch."""
        self._store.setValue(f"flag/{key}", value)
