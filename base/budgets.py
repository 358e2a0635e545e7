"""What a task and a day may cost: `config/budgets.toml`, the owner's laid over key by key."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from base.errors import SettingsError
from base.messages import Budget, Effort
from base.settings import Settings

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "budgets.toml"


class Daily(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    warning_usd: float = Field(ge=0)
    hard_limit_usd: float = Field(ge=0)


class Budgets(BaseModel):
    """`config/budgets.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: dict[Effort, Budget]
    daily: Daily

    def root(self, effort: Effort) -> Budget:
        return self.task[effort]


def load(settings: Settings) -> Budgets:
    """The shipped budgets with the owner's own laid over, key by key. Raises SettingsError."""
    merged: dict[str, Any] = {}
    for path in (SHIPPED, settings.config / "budgets.toml"):
        if not path.is_file():
            continue
        try:
            merged = _merge(merged, tomllib.loads(path.read_text(encoding="utf-8")))
        except tomllib.TOMLDecodeError as error:
            raise SettingsError([f"{path}: {error}"]) from error
    try:
        budgets = Budgets.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(
            [
                f"budgets.toml: {'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
            ]
        ) from None
    if missing := [effort.value for effort in Effort if effort not in budgets.task]:
        raise SettingsError([f"budgets.toml: no [task.{name}]" for name in missing])
    return budgets


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        known = merged.get(key)
        merged[key] = (
            _merge(known, value) if isinstance(known, dict) and isinstance(value, dict) else value
        )
    return merged
