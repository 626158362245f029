"""The artifact store this installation is set to: part of every composition root."""

from worker.encryption import open_keyring
from worker.settings import Settings
from worker.store.blobs import Blobs
from worker.store.blobs_backend import BlobBackend
from worker.store.blobs_folder import FolderBackend


def open_blobs(settings: Settings) -> Blobs:
    """The blobs of `GATEHOUSE_ARTIFACTS`, encrypted; nothing is connected to yet.

    Raises ValueError on an address that is none, KeyringError.
    """
    return Blobs(open_backend(settings), open_keyring(settings))


def open_backend(settings: Settings) -> BlobBackend:
    """Where the blobs lie, as they lie there. Raises ValueError on an address that is none."""
    if settings.artifacts is None:
        return FolderBackend(settings.blobs)
    # Imported here: half the processes of an installation on one machine need no S3 client.
    from worker.store.blobs_s3 import BucketSettings, S3Backend  # noqa: PLC0415

    bucket = BucketSettings(
        settings.artifacts, settings.artifacts_endpoint, settings.artifacts_region,
        settings.artifacts_access_key, settings.artifacts_secret_key,
    )  # fmt: skip
    return S3Backend(bucket, settings.blobs / "partial")
