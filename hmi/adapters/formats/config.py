"""Configurations from uploads, read so that no setting with an effect is skipped."""

from __future__ import annotations

import sys
from typing import Any

from hmi.errors import AdapterRefused

_MAX_NUMBER = sys.float_info.max  # JSON also has integers that no float can hold


class ConfigReader:
    """Takes the fields of a JSON object one by one. `finish` refuses remaining fields that may have an effect."""

    def __init__(self, place: str, values: dict[str, Any]) -> None:
        """`place` names the object in error messages (`adapter_config.json`)."""
        self.place = place
        self._values = dict(values)

    def is_null(self, name: str) -> bool:
        return self._values.get(name) is None

    def take(self, name: str, default: Any = None) -> Any:
        """Return the field's value, or the default where it is absent or null."""
        value = self._values.pop(name, None)
        return default if value is None else value

    def take_number(self, name: str) -> float:
        """Return a finite number above zero."""
        return self.positive(name, self.take(name))

    def take_boolean(self, name: str, *, default: bool | None = None) -> bool:
        return bool(self.require(name, (True, False), default=default, reason="it must be true or false"))

    def take_text(self, name: str) -> str:
        value = self.take(name)
        if not isinstance(value, str) or not value:
            raise self.refusal(name, value, "it must be a name")
        return value

    def take_object(self, name: str) -> dict[str, Any]:
        """Return a JSON object; empty where the field is absent."""
        value = self.take(name, {})
        if not isinstance(value, dict):
            raise self.refusal(name, value, "it must be an object")
        return value

    def take_section(self, name: str) -> ConfigReader:
        """Return a reader of a nested object, which must be present."""
        if not isinstance(self._values.get(name), dict):
            raise self.refusal(name, self._values.get(name), "it must be an object")
        return ConfigReader(f"{self.place}: {name}", self._values.pop(name))

    def take_names(self, name: str) -> list[str]:
        """Return a list of names; empty where the field is absent."""
        value = self.take(name, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self.refusal(name, value, "it must be a list of names")
        return value

    def require(self, name: str, allowed: tuple[object, ...], *, default: object, reason: str) -> Any:
        """Return the field's value, which must be one of `allowed`."""
        value = self.take(name, default)
        # 1 == True in Python, but not in a configuration.
        if not any(value == each and type(value) is type(each) for each in allowed):
            raise self.refusal(name, value, reason)
        return value

    def ignore(self, *names: str) -> None:
        """Discard fields that have no effect on inference."""
        for name in names:
            self._values.pop(name, None)

    def positive(self, name: str, value: object) -> float:
        """Return `value` as a finite number above zero; the refusal names the field."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < _MAX_NUMBER:
            raise self.refusal(name, value, "it must be a finite number above zero")
        return float(value)

    def refusal(self, name: str, value: object, reason: str) -> AdapterRefused:
        shown = repr(value)
        return AdapterRefused(f"{self.place}: {name} = {shown[:100]}{'...' * (len(shown) > 100)}: {reason}")

    def finish(self) -> None:
        """Raises `AdapterRefused` for a remaining field that is not null, false or empty."""
        for name, value in sorted(self._values.items()):
            if value is not None and value is not False and value not in ("", [], {}):
                raise self.refusal(name, value, "this setting is not understood")
