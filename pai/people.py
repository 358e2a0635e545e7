"""Who ever spoke in a user's memories, so that a question's names are known as names.

Read from the cards when the user first asks, kept up with what comes in. One whose last memory
was forgotten stays known until the keeper starts again; his name then finds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pai.shapes import Memory
from pai.stores import Stores


async def known(stores: Stores, users: Sequence[str]) -> set[str]:
    """The names of all who spoke in what these users have. Raises StoreError."""
    new = [user for user in users if user not in stores.people]
    if new:
        stores.people.update({user: set() for user in new})  # from now on `met` adds to them
        try:
            rows = await stores.store.fetch(
                "SELECT DISTINCT user_id, speaker FROM memory"
                " WHERE user_id = ANY($1::text[]) AND speaker <> ''",
                new,
            )
        except BaseException:
            for user in new:
                stores.people.pop(user, None)
            raise
        for row in rows:
            stores.people[row["user_id"]].add(row["speaker"])
    return set().union(*(stores.people.get(user, ()) for user in users))


def met(stores: Stores, memories: Iterable[Memory]) -> None:
    """They are remembered now."""
    for memory in memories:
        if memory.speaker and memory.user_id in stores.people:
            stores.people[memory.user_id].add(memory.speaker)
