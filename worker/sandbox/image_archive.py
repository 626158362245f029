"""A `docker load` archive made by ourselves, byte for byte determined by the root file system.

The image id (digest of the configuration) and its layer digest are therefore known before the engine sees anything,
and can be compared with what the engine says it loaded.
"""

import hashlib
import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tools.contract import canonical_json

_CHUNK = 1 << 20


@dataclass(frozen=True)
class ImageArchive:
    """One layer and its configuration, ready to stream."""

    rootfs: Path
    """Uncompressed tar of the root file system."""
    layer: str
    """`sha256:` digest of it; Docker's diff id."""
    config: bytes

    @property
    def image_id(self) -> str:
        """The id the classic image store gives it. (The containerd store uses another: compare layers there.)"""
        return f"sha256:{hashlib.sha256(self.config).hexdigest()}"

    @classmethod
    def of(
        cls, rootfs: Path, *, architecture: str, labels: Mapping[str, str], epoch: int, layer_label: str
    ) -> "ImageArchive":
        """Describe the tar at `rootfs`; `labels` and `layer_label`=its digest go into the configuration."""
        with rootfs.open("rb") as file:
            layer = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        config = canonical_json(
            {
                "architecture": architecture,
                "os": "linux",
                "created": created,
                "config": {
                    "Cmd": ["python3"],
                    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"],
                    "Labels": {**labels, layer_label: layer},
                },
                "rootfs": {"type": "layers", "diff_ids": [layer]},
                "history": [{"created": created, "created_by": "mmdebstrap"}],
            }
        )
        return cls(rootfs, layer, config)

    def stream(self, tag: str) -> Iterator[bytes]:
        """The archive in chunks. `tag` only keeps `docker image prune` away: containers are started by id."""
        name = f"{hashlib.sha256(self.config).hexdigest()}.json"
        manifest = canonical_json([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}])
        yield _member(name, self.config)
        size = self.rootfs.stat().st_size
        yield _header("layer.tar", size)
        with self.rootfs.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield _padding(size)
        yield _member("manifest.json", manifest)
        yield bytes(2 * tarfile.BLOCKSIZE)


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % tarfile.BLOCKSIZE)


def _member(name: str, content: bytes) -> bytes:
    block = io.BytesIO()
    block.write(_header(name, len(content)))
    block.write(content)
    block.write(_padding(len(content)))
    return block.getvalue()
