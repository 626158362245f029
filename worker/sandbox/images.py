"""Sandbox images: obtain them once, verify them, record their ids. `python -m worker.sandbox.images ensure --data DIR`.

Set-up runs this; the sandbox worker only reads the record. Nothing is ever pulled or built while a call runs, and
containers are started by id, never by a tag that somebody may move.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import yaml
from pydantic import Field, JsonValue, TypeAdapter, ValidationError

from tools.contract import JsonObject, Strict, Wire, canonical_json
from tools.images import ToolImage
from worker.sandbox import dockerfile
from worker.sandbox.docker_api import DockerApi
from worker.sandbox.engine import NotFound, SandboxUnavailable, connect, translated
from worker.sandbox.image_archive import ImageArchive

RECIPES: Final = Path(__file__).resolve().parents[2] / "deploy" / "images"
LABEL_RECIPE: Final = "gatehouse.recipe"
LABEL_LAYER: Final = "gatehouse.layer"
# Seconds without a byte of progress after which a registry counts as unreachable.
PULL_SILENCE_S: Final = 15.0
BUILD_TIMEOUT_S: Final = 1800
_BUILDER: Final = 1
"""Part of the recipe id: raised when this module builds the same recipe into something else."""


class BuildRecipe(Strict):
    """How to make the root file system from Debian's packages."""

    suite: str
    packages: tuple[str, ...]
    source_date_epoch: int
    leave_out: tuple[str, ...] = ()
    finish: tuple[str, ...] = ()


class Recipe(Strict):
    """`deploy/images/<name>.yaml`."""

    version: int
    pull: str = Field(pattern=r"^[^@\s]+@sha256:[0-9a-f]{64}$")
    build: BuildRecipe

    def id(self, architecture: str) -> str:
        """Digest of everything that decides what is built; the label by which a built image is found again."""
        content: dict[str, JsonValue] = {
            "builder": _BUILDER, "architecture": architecture, "build": self.build.model_dump(mode="json"),
        }  # fmt: skip
        return hashlib.sha256(canonical_json(content)).hexdigest()


class ImageRecord(Wire):
    """An image as it was verified; a container is started from `id` and nothing else."""

    name: str
    id: str
    layers: tuple[str, ...]
    source: Literal["present", "pulled", "built"]
    recipe: str
    """Digest of what it was built from."""
    base: str | None = None
    """Id of the image it was built on."""
    packages: tuple[str, ...] = ()
    """`name=version` of what is installed, as its own package database says."""
    recorded_at: datetime | None = None


_RECORDS = TypeAdapter(dict[str, ImageRecord])


def recorded(data: Path) -> dict[str, ImageRecord]:
    """What set-up recorded under `data`, by image name; empty before set-up. Raises SandboxUnavailable."""
    path = data / "images.json"
    try:
        return _RECORDS.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as error:
        raise SandboxUnavailable(f"{path} is damaged: {error}", f"remove it and run `{command(data)}`") from error


def command(data: Path) -> str:
    """The command that repairs a missing image."""
    return f"python -m worker.sandbox.images ensure --data {data}"


def load_recipe(name: str) -> Recipe:
    """Read and check `deploy/images/<name>.yaml`."""
    return Recipe.model_validate(yaml.safe_load((RECIPES / f"{name}.yaml").read_text()))


def verify(api: DockerApi, image: ImageRecord) -> bool:
    """Whether the engine holds exactly this image: same id, same layers (digests the engine computed itself)."""
    try:
        found = api.inspect_image(image.id)
    except Exception as error:
        if isinstance(translated(error), NotFound):
            return False
        raise translated(error) from error
    return _layers(found) == image.layers


def _layers(inspected: dict[str, JsonValue]) -> tuple[str, ...]:
    rootfs = inspected.get("RootFS")
    layers = rootfs.get("Layers") if isinstance(rootfs, dict) else None
    return tuple(str(layer) for layer in layers) if isinstance(layers, list) else ()


class ImageStore:
    """Obtains images and keeps the record under `data`.

    `say` receives one progress line at a time.
    """

    def __init__(self, data: Path, say: Callable[[str], None], *, docker_host: str | None = None) -> None:
        self._host = docker_host
        self._api = connect(docker_host)
        self._data = data
        self._say = say
        self._architecture = str(self._api.info().get("Architecture", ""))

    def ensure(self, name: str = "base", *, pull: bool = True) -> ImageRecord:
        """The image by the first way that works: present, pulled, built. Raises SandboxUnavailable with commands."""
        recipe = load_recipe(name)
        with self._locked():
            known = recorded(self._data)
            record = known.get(name)
            if record and record.recipe == recipe.id(self._architecture) and verify(self._api, record):
                return record.model_copy(update={"source": "present"})
            record = self._present(name, recipe) or (self._pulled(name, recipe) if pull else None)
            record = record or self._built(name, recipe)
            self._write({**known, name: record})
            return record

    @contextmanager
    def _locked(self) -> Generator[None]:
        self._data.mkdir(parents=True, exist_ok=True)
        with (self._data / "images.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, records: dict[str, ImageRecord]) -> None:
        aside = self._data / "images.json.new"
        aside.write_bytes(_RECORDS.dump_json(records, indent=2))
        aside.replace(self._data / "images.json")

    def tool(self, image: ToolImage) -> ImageRecord:
        """A tool's own image, built on the base image when it is not there. Raises SandboxUnavailable."""
        base = self.ensure("base")
        recipe = load_recipe("base")
        build = recipe.build.model_copy(update={"packages": (*recipe.build.packages, *image.packages)})
        recipe = recipe.model_copy(update={"build": build})
        wanted = dockerfile.recipe_id(image, base.layers) if image.files else recipe.id(self._architecture)
        with self._locked():
            known = recorded(self._data)
            record = known.get(image.name)
            if record and record.recipe == wanted and verify(self._api, record):
                return record.model_copy(update={"source": "present"})
            if image.files:
                self._say(f"sandbox image {image.name}: building on {base.id}, without a network")
                found = dockerfile.build(self._api, image, base.id, base.layers)
                record = self._record(image.name, wanted, found, "built")
            else:
                record = self._labelled(image.name, recipe) or self._built(image.name, recipe)
            record = record.model_copy(update={"base": base.id if image.files else None})
            self._write({**known, image.name: record})
            return record

    def _record(
        self, name: str, recipe: str, image_id: str, source: Literal["present", "pulled", "built"]
    ) -> ImageRecord:
        inspected = self._api.inspect_image(image_id)
        found = str(inspected["Id"])
        return ImageRecord(
            name=name, id=found, layers=_layers(inspected), source=source, recipe=recipe,
            packages=dockerfile.packages(self._api, found), recorded_at=datetime.now(UTC),
        )  # fmt: skip

    def _present(self, name: str, recipe: Recipe) -> ImageRecord | None:
        """An image some earlier set-up left in the engine: built by this recipe, or the pinned pull."""
        if (found := self._labelled(name, recipe)) is not None:
            return found
        try:
            found = self._record(name, recipe.id(self._architecture), _by_digest(recipe.pull), "present")
        except Exception as error:
            if isinstance(translated(error), SandboxUnavailable):
                raise translated(error) from error
            return None
        self._say(f"sandbox image {name}: already in the engine")
        return found

    def _labelled(self, name: str, recipe: Recipe) -> ImageRecord | None:
        """An image in the engine that was built by this recipe."""
        for image in self._api.images(filters={"label": f"{LABEL_RECIPE}={recipe.id(self._architecture)}"}):
            inspected = self._api.inspect_image(str(image["Id"]))
            config = inspected.get("Config")
            labels = config.get("Labels") if isinstance(config, dict) else None
            claimed = labels.get(LABEL_LAYER) if isinstance(labels, dict) else None
            if _layers(inspected) == (claimed,):
                self._say(f"sandbox image {name}: already in the engine")
                return self._record(name, recipe.id(self._architecture), str(image["Id"]), "present")
        return None

    def _pulled(self, name: str, recipe: Recipe) -> ImageRecord | None:
        self._say(f"sandbox image {name}: asking the registry for {recipe.pull}")
        repository, digest = _by_digest(recipe.pull).split("@")
        try:
            # A client of its own: the time-out is per read, so a slow download goes on and a silent one ends.
            api = connect(self._host, timeout_s=PULL_SILENCE_S)
            for progress in api.pull(repository, digest, stream=True, decode=True):
                _raise_reported(progress, "build instead")
            # The engine has compared the content with the digest.
            record = self._record(name, recipe.id(self._architecture), _by_digest(recipe.pull), "pulled")
        except Exception as error:  # noqa: BLE001 - whatever the reason, building is the next way
            self._say(f"sandbox image {name}: no registry ({_first_line(error)})")
            return None
        return record

    def _built(self, name: str, recipe: Recipe) -> ImageRecord:
        if not shutil.which("mmdebstrap"):
            raise SandboxUnavailable(
                f"sandbox image {name}: no registry answers and there is no mmdebstrap",
                f"`docker pull {_by_digest(recipe.pull)}` or `apt-get install mmdebstrap`; then `"
                f"{command(self._data)}`",
            )
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(self._architecture, self._architecture)
        with tempfile.TemporaryDirectory(prefix="image-", dir=self._data) as directory:
            rootfs = Path(directory) / "rootfs.tar"
            self._say(f"sandbox image {name}: building from Debian's packages (about a minute)")
            _bootstrap(recipe.build, architecture, rootfs, self._data)
            archive = ImageArchive.of(
                rootfs, architecture=architecture, epoch=recipe.build.source_date_epoch, layer_label=LABEL_LAYER,
                labels={LABEL_RECIPE: recipe.id(self._architecture)},
            )  # fmt: skip
            self._say(f"sandbox image {name}: loading {archive.image_id}")
            tag = f"gatehouse-sandbox-{name}:{recipe.id(self._architecture)[:12]}"
            for progress in self._api.load_image(archive.stream(tag)):
                _raise_reported(progress, "see the engine's log")
        # The containerd store chooses another id than the classic one, but both keep the layers.
        record = self._record(name, recipe.id(self._architecture), tag, "built")
        if record.layers != (archive.layer,):
            raise SandboxUnavailable(
                f"the engine loaded layers {record.layers}, expected {archive.layer}", "report this"
            )
        return record


def _raise_reported(progress: JsonObject, remedy: str) -> None:
    if "error" in progress:
        raise SandboxUnavailable(f"the Docker engine reports: {progress['error']}", remedy)


def _by_digest(reference: str) -> str:
    """`name:tag@digest` without the tag, which engines refuse beside a digest in some calls."""
    name, digest = reference.split("@")
    return f"{name.split(':')[0]}@{digest}"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _bootstrap(build: BuildRecipe, architecture: str, rootfs: Path, data: Path) -> None:
    """Run mmdebstrap; reproducible bit for bit for the same packages. Raises SandboxUnavailable with its last words."""
    # TMPDIR must be a file system that keeps device nodes and owners; a noexec or nodev /tmp breaks mmdebstrap.
    environment = {
        **os.environ,
        "SOURCE_DATE_EPOCH": str(build.source_date_epoch),
        "TMPDIR": str(rootfs.parent),
        "LC_ALL": "C.UTF-8",
    }
    arguments = [
        "mmdebstrap", "--variant=minbase", "--quiet", "--format=tar", f"--architectures={architecture}",
        f"--include={','.join(build.packages)}", '--aptopt=Acquire::Check-Valid-Until "false"',
        *(f"--aptopt={line}" for line in _apt_proxies()),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in build.leave_out),
        *(f"--customize-hook={hook}" for hook in build.finish),
        build.suite, str(rootfs), *_mirror(build.suite),
    ]  # fmt: skip
    try:
        done = subprocess.run(  # noqa: S603 - fixed program, no shell
            arguments, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxUnavailable(f"mmdebstrap: {_first_line(error)}", f"run `{command(data)}` again") from error
    if done.returncode != 0:
        last = " / ".join(done.stderr.strip().splitlines()[-3:])
        raise SandboxUnavailable(
            f"mmdebstrap failed: {last}",
            f"check `apt-get update`, then run `{command(data)}` (as root, or with user namespaces)",
        )


def _mirror(suite: str) -> list[str]:
    """The sources this machine's own apt uses, when they are of the same suite: its administrator chose the mirror."""
    for path in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        if path.is_file() and suite in path.read_text(errors="replace"):
            return [str(path)]
    return []


def _apt_proxies() -> list[str]:
    """The machine's apt proxy settings: mmdebstrap's own apt does not read the host's configuration."""
    try:
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return []
    wanted = ("Acquire::http::Proxy ", "Acquire::https::Proxy ", "Acquire::https::CAInfo ")
    return [line.rstrip(";") for line in dump.splitlines() if line.startswith(wanted)]


def main() -> int:
    """Entry of `python -m worker.sandbox.images`. Prints the record as JSON; status 1 with the remedy on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m worker.sandbox.images", description="Obtain and verify sandbox images."
    )
    parser.add_argument("action", choices=["ensure"])
    parser.add_argument("--data", type=Path, required=True, help="data directory of the installation")
    parser.add_argument("--docker-host", help="address of the Docker engine")
    parser.add_argument("--image", default="base")
    parser.add_argument("--no-pull", action="store_true", help="do not ask a registry")
    options = parser.parse_args()

    def say(line: str) -> None:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    try:
        store = ImageStore(options.data, say, docker_host=options.docker_host)
        record = store.ensure(options.image, pull=not options.no_pull)
    except SandboxUnavailable as error:
        say(f"error: {error.problem}\nremedy: {error.remedy}")
        return 1
    sys.stdout.write(json.dumps(record.model_dump(mode="json")) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
