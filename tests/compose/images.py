"""Stand-ins for the images compose.yaml names, made from Debian packages: no registry of images is needed.

One Debian with Python, Redis, nginx and Prometheus in it, which debootstrap makes once (a cached archive); on top of
it what the real images have: users' directories, entry points. It carries this machine's CA certificates, so that pip
works inside wherever it works outside. Debian has no Grafana: that service has no stand-in.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

from tests.compose.engine import PATH, Engine, run

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
PACKAGES = "ca-certificates,python3-venv,redis-server,nginx,prometheus"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "roomcast-compose"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

DEBIAN = "roomcast-test/debian"
STAND_INS = {
    # variable of compose.yaml: what its image has on top of Debian
    "NODE_BASE_IMAGE": r"RUN printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > /etc/pip.conf",
    "NGINX_IMAGE": "CMD nginx",
    "REDIS_IMAGE": "RUN mkdir /data && chown 999:999 /data",
    "PROMETHEUS_IMAGE": "RUN mkdir /prometheus && chown 65534:65534 /prometheus\n"
    'USER 65534:65534\nENTRYPOINT ["prometheus"]',
}


def debian_archive() -> Path:
    """The root file system as a tar file, made by debootstrap where it is not cached yet (a minute)."""
    name = hashlib.sha256(f"{SUITE} {PACKAGES}".encode()).hexdigest()[:12]
    archive = CACHE / f"{SUITE}-{name}.tar"
    if archive.exists():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PATH": PATH}
    with tempfile.TemporaryDirectory(prefix="rc-debian-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)
        options = ["--variant=minbase", f"--include={PACKAGES}"]
        run(["debootstrap", *options, SUITE, directory], environment, timeout_s=600)
        leave_out = ["--exclude=./var/cache/apt", "--exclude=./var/lib/apt/lists", "--exclude=./usr/share/doc"]
        part = archive.with_suffix(f".{os.getpid()}")
        run(["tar", "-C", directory, *leave_out, "-cf", str(part), "."], environment, timeout_s=120)
        part.rename(archive)
    return archive


def import_debian(engine: Engine) -> None:
    with open(debian_archive(), "rb") as archive:
        subprocess.run(
            ["docker", "import", "-", f"{DEBIAN}:latest"],
            env=engine.environment,
            stdin=archive,
            check=True,
            capture_output=True,
            timeout=300,
        )


def build_stand_ins(engine: Engine) -> dict[str, str]:
    """Variable of compose.yaml -> name of the image that stands in. The engine has the machine's network."""
    import_debian(engine)
    images = {}
    with tempfile.TemporaryDirectory(prefix="rc-image-", dir="/tmp") as directory:
        Path(directory, "ca-certificates.crt").write_bytes(CERTIFICATES.read_bytes())
        for variable, lines in STAND_INS.items():
            images[variable] = f"roomcast-test/{variable.lower().removesuffix('_image')}"
            Path(directory, "Dockerfile").write_text(
                f"FROM {DEBIAN}\nCOPY ca-certificates.crt {CERTIFICATES}\n{lines}\n"
            )
            engine.docker("build", "-q", "--network", "host", "-t", images[variable], directory, timeout_s=300)
    return images
