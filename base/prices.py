"""Which models there are, what they cost and which one does what: `config/models.toml`.

The shipped file lies in the checkout beside the packages; `$AI_INFRA_HOME/config/models.toml`
is laid over it key by key.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from base.errors import SettingsError
from base.messages import Effort, Usage
from base.settings import Settings

SHIPPED = Path(__file__).resolve().parent.parent / "config" / "models.toml"
MILLION = 1_000_000
#: An agent's own work, to which its `default` model applies.
AGENT_PURPOSES = frozenset({"frame", "execute", "trace", "peer"})
SNAPSHOT_DIGITS = 8


class Model(BaseModel):
    """One model. Prices are dollars per million tokens; cached input is priced apart.

    forced_tools: whether it takes a request that forces a tool; else the tool is only offered,
    and the prompt asks for it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    input_usd: float = Field(ge=0)
    output_usd: float = Field(ge=0)
    cache_read_usd: float = Field(ge=0)
    cache_write_usd: float = Field(ge=0)
    context_tokens: int = Field(gt=0)
    output_max_tokens: int = Field(gt=0)
    forced_tools: bool = True


class VoicePrice(BaseModel):
    """What a minute that is heard costs, and a million characters that are spoken."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    minute_usd: float = Field(0.0, ge=0)
    million_chars_usd: float = Field(0.0, ge=0)


class Use(BaseModel):
    """Which model does what, each by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    default: str
    purposes: dict[str, str] = {}
    efforts: dict[Effort, str] = {}
    agents: dict[str, dict[str, str]] = {}


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, Model] = Field(min_length=1)
    voices: dict[str, VoicePrice] = {}
    use: Use


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """The price list and the choice of models. Build it with `load`."""

    known: dict[str, Model]
    voices: dict[str, VoicePrice]
    use: Use

    @classmethod
    def load(cls, settings: Settings | None = None) -> Models:
        """The shipped file with the home's laid over it; None reads the shipped file alone.

        Raises SettingsError naming every fault of the two.
        """
        own = _read(settings.config / "models.toml") if settings else {}
        try:
            file = _File.model_validate(_over(_read(SHIPPED, required=True), own))
        except ValidationError as error:
            faults = error.errors(include_input=False, include_url=False)
            raise SettingsError(
                [f"models.toml: {'.'.join(map(str, f['loc']))}: {f['msg']}" for f in faults]
            ) from error
        return cls(known=file.models, voices=file.voices, use=file.use)

    def pick(self, agent: str, effort: Effort | str, purpose: str) -> str:
        """The model that does `purpose` for `agent`; see the order in config/models.toml."""
        own = self.use.agents.get(agent, {})
        if purpose in own:
            return own[purpose]
        if purpose in AGENT_PURPOSES and "default" in own:
            return own["default"]
        if purpose in self.use.purposes:
            return self.use.purposes[purpose]
        return self.use.efforts.get(Effort(effort), self.use.default)

    def find(self, name: str) -> Model | None:
        """The model of that name, or of that name with a snapshot date; None when unknown."""
        if name in self.known:
            return self.known[name]
        stem, _, date = name.rpartition("-")
        return self.known.get(stem) if date.isdigit() and len(date) == SNAPSHOT_DIGITS else None

    def price(self, name: str) -> Model:
        """As `find`; an unknown model is priced as the dearest known, so never too low."""
        return self.find(name) or max(
            self.known.values(), key=lambda model: (model.output_usd, model.input_usd)
        )

    def cost(self, name: str, usage: Usage) -> float:
        """Dollars that `usage` costs with that model. `usage.cost_usd` is not looked at."""
        model = self.price(name)
        return (
            usage.input_tokens * model.input_usd
            + usage.output_tokens * model.output_usd
            + usage.cache_read_tokens * model.cache_read_usd
            + usage.cache_write_tokens * model.cache_write_usd
        ) / MILLION

    def heard_usd(self, name: str, seconds_s: float) -> float | None:
        """Dollars for a recording that this model writes down; None for a model unknown here."""
        voice = self.voices.get(name)
        return None if voice is None else voice.minute_usd * seconds_s / 60

    def spoken_usd(self, name: str, chars: int) -> float | None:
        """Dollars for a text that this model speaks; None for a model unknown here."""
        voice = self.voices.get(name)
        return None if voice is None else voice.million_chars_usd * chars / MILLION


def _read(path: Path, *, required: bool = False) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if required:
            raise SettingsError([f"{path} is missing; the checkout is incomplete"]) from error
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError([f"{path}: {error}"]) from error


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` laid over `below`, table by table."""
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            both[key] = _over(below[key], above[key])
    return both
