"""The artifact store this installation is set to: part of every composition root."""

from worker.settings import Settings
from worker.store.blobs import Blobs
from worker.store.blobs_folder import FolderBackend


def open_blobs(settings: Settings) -> Blobs:
    """The blobs of `GATEHOUSE_ARTIFACTS`; nothing is connected to yet. Raises ValueError on an address that is none."""
    if settings.artifacts is None:
        return Blobs(FolderBackend(settings.blobs))
    # Imported here: half the processes of an installation on one machine need no S3 client.
    from worker.store.blobs_s3 import BucketSettings, S3Backend  # noqa: PLC0415

    bucket = BucketSettings(
        settings.artifacts, settings.artifacts_endpoint, settings.artifacts_region,
        settings.artifacts_access_key, settings.artifacts_secret_key,
    )  # fmt: skip
    return Blobs(S3Backend(bucket, settings.blobs / "partial"))
