"""What the requests of the broker's verbs are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from base.hostname import hostname

Host = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(hostname)]
Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]{0,120}$")]
Identity = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,100}$")]


class Ask(BaseModel):
    """Base of the requests: frozen, and a field that is not known is refused. Each is built when it
    is first used: half a hundred of them are a third of what an agent loads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
