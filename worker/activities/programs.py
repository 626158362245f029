"""Programs by digest, as the sandbox runs them: read from the blob store once, checked there, and kept at hand."""

from collections import OrderedDict
from typing import Final

from worker.store.blobs import Blobs

# Of at most 256 KiB each.
_KEPT: Final = 64


class Programs:
    """The programs that were used last."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    async def read(self, sha256: str) -> bytes:
        """The program. Raises BlobMissing, BlobDamaged, StoreUnavailable; a name stands for its content for ever, so
        what was read whole once is not read again."""
        program = self._kept.pop(sha256, None)
        if program is None:
            program = await self._blobs.read(sha256)
        self._kept[sha256] = program
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return program
