"""Which packages of an environment a release wants: by what they and the release say themselves."""

from __future__ import annotations

import importlib.metadata
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from base.errors import ConflictError
from base.plural import counted

TOOL = "pip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """What a release's pyproject.toml says of packages; `build`: those that install it."""

    dependencies: tuple[str, ...]
    python: str
    build: tuple[str, ...]


def there(site: Path) -> dict[str, importlib.metadata.Distribution]:
    """The packages that lie in this folder, by their names as pip compares them."""
    found = importlib.metadata.distributions(path=[str(site)])
    return {canonicalize_name(name): one for one in found if (name := one.metadata["Name"])}


def needed(
    wanted: Iterable[str], there: Mapping[str, importlib.metadata.Distribution]
) -> dict[str, str]:
    """Of what is there: what fulfils these requirements, with all that it needs itself; versions by
    name. Raises ConflictError for one that is not there, or not as it is wanted.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    left = [(_read(text), "") for text in wanted]
    while left:
        one, extra = left.pop()
        if one.marker is not None and not one.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(one.name)
        package = there.get(name)
        if package is None:
            raise ConflictError(f"{one.name} is wanted and not there")
        if not one.specifier.contains(package.version, prereleases=True):
            raise ConflictError(f"{one.name} {package.version} is there where {one} is wanted")
        found[name] = package.version
        for more in {"", *one.extras} - {known for at, known in seen if at == name}:
            seen.add((name, more))
            left += [(_read(text), more) for text in package.requires or ()]
    return found


def project(pyproject: Path) -> Project:
    """Raises OSError or TOMLDecodeError."""
    told = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    ours = told.get("project", {})
    return Project(
        dependencies=tuple(ours.get("dependencies", ())),
        python=ours.get("requires-python", ""),
        build=tuple(told.get("build-system", {}).get("requires", ["setuptools"])),
    )


def tools(project: Project) -> set[str]:
    """What a fresh environment has beside what the release wants: it installs and builds it."""
    return {TOOL, *(canonicalize_name(_read(text).name) for text in project.build)}


def builds(project: Project, site: Path) -> bool:
    """Whether what builds the release is in this folder; pip fetches it else."""
    found = there(site)
    try:
        versions = needed(project.build, found)
    except ConflictError:
        return False
    # The first setuptools that needs no package `wheel` beside it.
    return Version(versions.get("setuptools", "71")) >= Version("70.1")


def differ(old: Iterable[str], new: Iterable[str]) -> list[str]:
    """What of the requirements `new` is not among the `old`, in words, and which of those went."""
    was, now = set(old), set(new)
    names = {canonicalize_name(_read(one).name) for one in now}
    gone = [_read(one).name for one in was if canonicalize_name(_read(one).name) not in names]
    return sorted(now - was) + [f"no {name} any more" for name in sorted(gone)]


def told(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """How two environments differ, by their versions: what came, what went, what both have."""
    came = sorted(f"{name} {version}" for name, version in new.items() if old.get(name) != version)
    went = sorted(set(old) - set(new))
    parts = [f"{len(came)} came ({', '.join(came)})"] if came else []
    parts += [f"{len(went)} went ({', '.join(went)})"] if went else []
    shared = len(new) - len(came)
    return ", ".join([*parts, f"{counted(shared, 'package')} shared with the release before"])


def _read(text: str) -> Requirement:
    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise ConflictError(f"{text!r} names no package: {error}") from error
