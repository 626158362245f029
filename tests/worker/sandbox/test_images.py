"""Images are found, verified and recorded; an archive of ours has an id we know before the engine does."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from worker.sandbox.engine import SandboxUnavailable, connect
from worker.sandbox.image_archive import ImageArchive
from worker.sandbox.images import ImageStore, load_recipe, recorded, verify

ROOT = Path(__file__).resolve().parents[3]


def test_an_image_in_the_engine_is_found_by_a_fresh_clone(sandbox_data: Path, tmp_path: Path) -> None:
    known = recorded(sandbox_data)["base"]
    said: list[str] = []
    found = ImageStore(tmp_path, said.append).ensure(pull=False)
    assert (found.id, found.layers, found.source) == (known.id, known.layers, "present")
    assert recorded(tmp_path)["base"].id == known.id
    assert said == ["sandbox image base: already in the engine"]
    assert ImageStore(tmp_path, said.append).ensure().source == "present"


def test_other_layers_under_the_same_id_are_not_accepted(sandbox_data: Path) -> None:
    known = recorded(sandbox_data)["base"]
    api = connect()
    assert verify(api, known)
    assert not verify(api, known.model_copy(update={"layers": ("sha256:" + "0" * 64,)}))
    assert not verify(api, known.model_copy(update={"id": "sha256:" + "0" * 64}))


def test_command_prints_the_record(tmp_path: Path, sandbox_data: Path) -> None:
    command = [sys.executable, "-m", "worker.sandbox.images", "ensure", "--data", str(tmp_path), "--no-pull"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    assert json.loads(done.stdout)["id"] == recorded(sandbox_data)["base"].id
    refused = subprocess.run([*command, "--docker-host", "unix:///nowhere"], cwd=ROOT, capture_output=True, check=False)
    assert refused.returncode == 1
    assert b"remedy:" in refused.stderr


def test_damaged_record_names_the_remedy(tmp_path: Path) -> None:
    assert recorded(tmp_path) == {}
    (tmp_path / "images.json").write_text("{")
    with pytest.raises(SandboxUnavailable, match="remove it and run"):
        recorded(tmp_path)


def test_pull_is_pinned_by_digest_and_recipe_decides_the_id() -> None:
    recipe = load_recipe("base")
    assert "@sha256:" in recipe.pull
    other = recipe.model_copy(update={"build": recipe.build.model_copy(update={"packages": ("python3", "curl")})})
    assert len({recipe.id("x86_64"), recipe.id("aarch64"), other.id("x86_64")}) == 3


def test_archive_is_deterministic(tmp_path: Path) -> None:
    rootfs = tmp_path / "rootfs.tar"
    with tarfile.open(rootfs, "w") as tar:
        info = tarfile.TarInfo("file")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    made = [
        ImageArchive.of(rootfs, architecture="amd64", labels={"a": "b"}, epoch=0, layer_label="layer") for _ in range(2)
    ]
    first, second = (b"".join(archive.stream("a:b")) for archive in made)
    assert first == second
    with tarfile.open(fileobj=io.BytesIO(first)) as archive:
        names = archive.getnames()
    assert names == [f"{made[0].image_id.removeprefix('sha256:')}.json", "layer.tar", "manifest.json"]
