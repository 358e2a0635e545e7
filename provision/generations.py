"""Generations: each a whole configuration of all our sites, in a folder; one link says which is
in use, so that every change of it is a single step.

    /etc/nginx/ai-infra/current -> generations/<id>
        http.conf conf.d/ snippets/ sites-available/ sites-enabled/ id specs.json

`zz-ai-infra.conf` in sites-enabled leads nginx there; that file and this folder are all that is
ours beside nginx.conf.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path

import crossplane

from base.errors import ConflictError
from provision.box import Box
from provision.disk import point, sync, write
from provision.spec import ANY, Spec, dump, load
from provision.template import Templates

HOOK = "zz-ai-infra.conf"
KEPT = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """problems: sites that are set aside since nginx refuses them, with its words."""

    id: str
    specs: Mapping[str, Spec] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)

    @property
    def served(self) -> tuple[Spec, ...]:
        return tuple(s for s in self.specs.values() if s.enabled and s.domain not in self.problems)


class Generations:
    def __init__(self, box: Box) -> None:
        self.root = box.nginx / "ai-infra"
        self._box = box
        self._folder = self.root / "generations"
        self._link = self.root / "current"

    def current(self) -> str | None:
        try:
            return self._link.readlink().name
        except FileNotFoundError:
            return None

    def read(self, generation: str | None) -> Generation:
        """None: the empty one, before the first."""
        if generation is None:
            return Generation(id="")
        raw = json.loads((self._folder / generation / "specs.json").read_text())
        specs = {one["domain"]: load(one) for one in raw["specs"]}
        return Generation(id=generation, specs=specs, problems=raw["problems"])

    def draw(self, one: Generation, templates: Templates) -> dict[str, str]:
        """The text of each file."""
        files = templates.shared()
        files["sites-available/default.conf"] = templates.default(
            any_name=any(spec.domain == ANY for spec in one.served)
        )
        files["sites-available/generation.conf"] = templates.generation(self._folder / one.id)
        for spec in one.specs.values():
            files[f"sites-available/{spec.domain}.conf"] = templates.site(spec)
        record = {"specs": [dump(s) for s in one.specs.values()], "problems": dict(one.problems)}
        return files | {"specs.json": json.dumps(record, indent=1), "id": one.id}

    def lay(self, one: Generation, files: Mapping[str, str], folder: Path) -> None:
        """Write it into `folder`, which is made; the workers must be able to read it."""
        for name in ("", "conf.d", "snippets", "sites-available", "sites-enabled"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name).chmod(0o755)
        for name, text in files.items():
            write(folder / name, text.encode())
        for spec in one.served:
            name = f"{spec.domain}.conf"
            (folder / "sites-enabled" / name).symlink_to(f"../sites-available/{name}")
        sync(folder / "sites-enabled")

    def add(self, one: Generation, files: Mapping[str, str]) -> None:
        """Lay it down beside the others, whole or not at all; nothing uses it yet."""
        fresh = self._folder / f".new-{one.id}"
        self.lay(one, files, fresh)
        fresh.rename(self._folder / one.id)
        sync(self._folder)

    def switch(self, generation: str | None) -> None:
        """The one step of a change."""
        if generation is not None:
            point(self._link, f"generations/{generation}")
        else:
            self._link.unlink(missing_ok=True)
            sync(self.root)

    def sweep(self) -> None:
        """What a kill left half-written goes, and all but the newest generations."""
        for half in (*self._folder.glob(".new-*"), *self.root.glob(".current.*")):
            shutil.rmtree(half) if half.is_dir() and not half.is_symlink() else half.unlink()
        found = sorted(path for path in self._folder.glob("[0-9]*") if path.is_dir())
        for old in found[:-KEPT]:
            if old.name != self.current():
                shutil.rmtree(old)

    def diff(self, old: Generation, new: Generation, files: Mapping[str, str]) -> str:
        """What nginx is told otherwise; a site that is not served counts as not there."""
        before = self._told(old, self._read(old))
        after = self._told(new, files)
        lines: list[str] = []
        for name in sorted({*before, *after}):
            was, now = (side.get(name, "").splitlines(keepends=True) for side in (before, after))
            lines += unified_diff(was, now, f"a/{name}", f"b/{name}")
        return "".join(lines)

    def hook(self) -> Path | None:
        """Lead nginx to `current`; the file, when it was not there before. Raises ConflictError
        when this nginx.conf reads no folder that a file may be put into.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.root, self._folder):
            folder.chmod(0o755)
        places = [self._box.nginx / folder / HOOK for folder in ("sites-enabled", "conf.d")]
        if any(place.exists() for place in places):
            return None
        for place in places:
            if place.parent.is_dir():
                # A glob: nginx takes it that there is no generation yet.
                write(place, f"include {self._link}/*.conf;\n".encode())
                payload = crossplane.parse(str(self._box.nginx / "nginx.conf"), check_ctx=False)
                if any(Path(one["file"]) == place for one in payload["config"]):
                    return place
                place.unlink()
        raise ConflictError(
            f"{self._box.nginx}/nginx.conf includes neither sites-enabled nor conf.d"
        )

    def _read(self, one: Generation) -> dict[str, str]:
        found = {}
        folder = self._folder / one.id
        with suppress(FileNotFoundError):
            for path in folder.rglob("*.conf") if one.id else ():
                if not path.is_symlink():
                    found[str(path.relative_to(folder))] = path.read_text()
        return found

    @staticmethod
    def _told(one: Generation, files: Mapping[str, str]) -> dict[str, str]:
        served = {f"sites-available/{spec.domain}.conf" for spec in one.served}
        left_out = {"sites-available/generation.conf", "specs.json", "id"}
        shared = {name for name in files if not name.startswith("sites-available/")}
        shared.add("sites-available/default.conf")
        return {k: v for k, v in files.items() if k in (served | shared) - left_out}
