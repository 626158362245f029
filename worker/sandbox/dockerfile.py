"""Builds a tool's own Dockerfile on the base image, without a network, and reads what an image has installed.

Runs in set-up (`gatehouse images build`), never while a call runs.
"""

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import JsonValue

from tools.contract import JsonObject, canonical_json
from tools.images import ToolImage
from worker.sandbox.docker_api import DockerApi
from worker.sandbox.engine import LABEL_KIND, NotFound, SandboxUnavailable, translated

BUILD_TIMEOUT_S: Final = 900
_BUILDER: Final = 1
_STATUS: Final = "/var/lib/dpkg/status"
_MOST_STATUS_BYTES: Final = 32 << 20


def recipe_id(image: ToolImage, base_layers: Sequence[str]) -> str:
    """Digest of everything that decides what is built."""
    files: dict[str, JsonValue] = {path: hashlib.sha256(content).hexdigest() for path, content in image.files.items()}
    return hashlib.sha256(canonical_json({"builder": _BUILDER, "base": list(base_layers), "files": files})).hexdigest()


def build(api: DockerApi, image: ToolImage, base: str, base_layers: Sequence[str]) -> str:
    """Build and give the image's id. Raises SandboxUnavailable with the builder's last words."""
    tag = f"gatehouse-sandbox-{image.name}:{recipe_id(image, base_layers)[:12]}"
    last: list[str] = []
    try:
        for progress in api.build(
            fileobj=_context(image.files), custom_context=True, buildargs={"BASE": base}, network_mode="none",
            pull=False, nocache=True, rm=True, forcerm=True, tag=tag, decode=True, timeout=BUILD_TIMEOUT_S,
            # Else the client's proxy settings, passwords included, become part of the build.
            use_config_proxy=False,
        ):  # fmt: skip
            last = [*last, str(progress.get("stream") or progress.get("error") or "").strip()][-4:]
            if "error" in progress:
                raise _failed(image, last)  # noqa: TRY301 - one place for what the client raises, too
        inspected = api.inspect_image(tag)
    except SandboxUnavailable:
        raise
    except Exception as error:
        raise SandboxUnavailable(f"building {image.name}: {error}", "see the engine's log") from error
    _check(api, image, tag, inspected, base_layers)
    return str(inspected["Id"])


def _failed(image: ToolImage, said: Sequence[str]) -> SandboxUnavailable:
    problem = f"building {image.name}: {' / '.join(filter(None, said))}"
    return SandboxUnavailable(problem, "correct the Dockerfile; it has no network")


def _check(api: DockerApi, image: ToolImage, tag: str, inspected: JsonObject, base_layers: Sequence[str]) -> None:
    """Refuse what does not stand on the base image, or would give its boxes more than they ask for."""
    rootfs, config = inspected.get("RootFS"), inspected.get("Config")
    layers = rootfs.get("Layers") if isinstance(rootfs, dict) else None
    on_base = isinstance(layers, list) and [str(layer) for layer in layers[: len(base_layers)]] == list(base_layers)
    volumes = config.get("Volumes") if isinstance(config, dict) else None
    if not on_base or volumes:
        api.remove_image(tag, force=True)
        why = "declares volumes" if on_base else "does not stand on the base image"
        raise SandboxUnavailable(f"the image {image.name} {why}", "correct the Dockerfile")


def _context(files: Mapping[str, bytes]) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, content in sorted(files.items()):
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    out.seek(0)
    return out


def packages(api: DockerApi, image_id: str) -> tuple[str, ...]:
    """`name=version` of every installed Debian package, sorted; empty when the image has no package database.

    Nothing of the image is run: the file is read from a container that never starts.
    """
    config = {"Image": image_id, "Cmd": ["none"], "NetworkDisabled": True, "Labels": {LABEL_KIND: "image"}}
    try:
        made = str(api.create_container_from_config(config)["Id"])
        try:
            stream, _ = api.get_archive(made, _STATUS)
            raw = b""
            for chunk in stream:
                raw += chunk
                if len(raw) > _MOST_STATUS_BYTES:
                    return ()
        finally:
            api.remove_container(made, force=True)
    except Exception as error:
        if isinstance(translated(error), NotFound):
            return ()
        raise translated(error) from error
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        member = next(iter(archive))
        file = archive.extractfile(member) if member.isfile() else None
        return _installed(file.read().decode("utf-8", "replace")) if file else ()


def _installed(status: str) -> tuple[str, ...]:
    found: list[str] = []
    for entry in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in entry.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status", "").endswith(" installed"):
            found.append(f"{fields.get('Package', '?')}={fields.get('Version', '?')}")
    return tuple(sorted(found))
