"""What our templates become: on each nginx that is supported, linted, and nothing beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from nginx_rig import ground, make_box

from base.errors import ConflictError
from provision import allowed
from provision.box import Box
from provision.generations import Generation, Generations
from provision.spec import Spec
from provision.template import Server, Templates

__all__ = ["ground"]

DEBIAN_12 = Server(version=(1, 22, 1), openssl=(3, 0))
DEBIAN_13 = Server(version=(1, 26, 3), openssl=(3, 5))
WEB = Path("/var/www/a.example/current")
LIVE = Path("/etc/letsencrypt/live/a.example")
TLS = {"certificate": LIVE / "fullchain.pem", "key": LIVE / "privkey.pem"}
SPECS = (
    Spec(domain="a.example", names=("www.a.example",), root=WEB, **TLS),
    Spec(domain="b.example", kind="proxy", upstream="http://127.0.0.1:3000", **TLS),
    Spec(domain="c.example", kind="redirect", target="a.example"),
    Spec(domain="d.example", kind="portal", upstream="http://127.0.0.1:8000", **TLS),
    Spec(domain="e.example", kind="api", upstream="http://127.0.0.1:8000", **TLS),
)


def templates(box: Box, server: Server) -> Templates:
    return Templates(box, server, box.nginx / "ai-infra")


def test_each_nginx_is_told_what_it_knows() -> None:
    old, new = (templates(Box(), server) for server in (DEBIAN_12, DEBIAN_13))
    assert "listen 443 ssl http2;" in old.site(SPECS[0])
    assert "listen 443 ssl;\n    listen [::]:443 ssl;\n    http2 on;" in new.site(SPECS[0])
    params = "snippets/ssl-params.conf"
    assert "ssl_ecdh_curve X25519:prime256v1" in old.shared()[params]
    assert "ssl_ecdh_curve X25519MLKEM768:X25519:prime256v1" in new.shared()[params]
    assert "ssl_session_tickets off" in old.shared()[params]
    assert "ssl_session_tickets" not in new.shared()[params]
    without = templates(Box(), replace(DEBIAN_12, ipv6=False))
    assert "[::]" not in without.site(SPECS[0]) + without.default()


@pytest.mark.parametrize("value", ["a b", "a;b", "a{b", 'a"b', "a$b", "a\nb", "a#b", "a\\b"])
def test_a_value_that_nginx_would_read_is_never_drawn(value: str) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        templates(Box(), DEBIAN_12).site(replace(SPECS[0], domain=value))


def test_every_kind_passes_the_allowlist_and_the_lint(tmp_path: Path) -> None:
    box = Box(nginx=tmp_path)
    drawn = templates(box, DEBIAN_12)
    generations = Generations(box)
    one = Generation(id="20261128T000000000000-000000", specs={s.domain: s for s in SPECS})
    folder = tmp_path / "ai-infra" / "current"
    generations.lay(one, generations.draw(one, drawn), folder)
    for spec in SPECS:
        file = folder / "sites-available" / f"{spec.domain}.conf"
        allowed.check(file, spec, box, generations.root)
    (tmp_path / "sites-enabled").mkdir()
    (tmp_path / "sites-enabled" / "ours.conf").write_text(f"include {folder}/*.conf;\n")
    (tmp_path / "mime.types").write_text("types { text/html html; }\n")
    (tmp_path / "nginx.conf").write_text(drawn.main())
    # A cache of open files would go on serving the release before for a minute.
    argv = [sys.executable, "-m", "gixy", "-f", "json", "--skips", "try_files_is_evil_too"]
    argv.append(str(tmp_path / "nginx.conf"))
    said = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert json.loads(said.stdout) == [], said.stdout
    bad = tmp_path / "sites-enabled" / "bad.conf"
    bad.write_text("server { location /a { alias /srv/a/; } add_header X-Y $host$http_x; }\n")
    said = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)
    assert "alias_traversal" in said.stdout


PLANTED = (
    "alias /etc/;",
    "root /;",
    "root /etc;",
    "root /var/www/../../etc;",
    "include /etc/passwd;",
    "include /etc/nginx/ai-infra/current/snippets/../../../../shadow;",
    "proxy_pass http://169.254.169.254;",
    "proxy_pass http://127.0.0.1:3000$request_uri;",
    "fastcgi_pass unix:/run/php.sock;",
    "access_log /etc/cron.d/x;",
    "error_log /etc/cron.d/x;",
    "server_name other.example;",
    "listen 22;",
    "listen unix:/run/x.sock;",
    "return 200 text;",
    "return 301 https://evil.example/$request_uri;",
    "return 301 http://a.example$request_uri;",
    "rewrite ^ https://evil.example/;",
    "autoindex on;",
    "auth_basic_user_file /etc/shadow;",
    "ssl_certificate /etc/ssl/other.pem;",
    "sub_filter a b;",
    "perl_modules /tmp;",
    "if ($host) { return 404; }",
    "set $x y;",
    "dav_methods PUT;",
    "proxy_store on;",
    "client_body_temp_path /etc/x;",
)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_directive_is_refused(tmp_path: Path, planted: str) -> None:
    box, spec = Box(), SPECS[0]
    text = templates(box, DEBIAN_12).site(spec)
    file = tmp_path / "a.example.conf"
    file.write_text(text)
    allowed.check(file, spec, box, box.nginx / "ai-infra")
    for place in ("    location ~ /\\.", "    ssl_certificate "):
        assert place in text
        file.write_text(text.replace(place, f"    {planted}\n{place}", 1))
        with pytest.raises(ConflictError, match="may not stand"):
            allowed.check(file, spec, box, box.nginx / "ai-infra")


def test_a_machine_without_sites_enabled_is_refused(tmp_path: Path) -> None:
    box = make_box(tmp_path)
    (box.nginx / "nginx.conf").write_text("events {}\nhttp { include conf.d/*.conf; }\n")
    assert Generations(box).hook() == box.nginx / "conf.d" / "zz-ai-infra.conf"
    (box.nginx / "conf.d" / "zz-ai-infra.conf").unlink()
    (box.nginx / "nginx.conf").write_text("events {}\nhttp { server { listen 80; } }\n")
    with pytest.raises(ConflictError, match="includes neither"):
        Generations(box).hook()
