"""Uploads: files a run may be started with. The body is the file itself, streamed to the blob store."""

import re
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.requests import ClientDisconnect

from api.auth import FilesUploader
from api.errors import Refused, invalid, problems
from api.limits import safe_name
from api.services import ServicesDep
from tools.contract import Wire
from worker.store.blobs import BlobTooLarge

_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]{1,63}/[a-z0-9!#$&^_.+-]{1,63}")

router = APIRouter(prefix="/files", tags=["files"])


class FileOut(Wire):
    """An uploaded file; `sha256` is over its bytes."""

    id: str
    name: str
    size: int
    sha256: str
    media_type: str


@router.post(
    "",
    operation_id="upload_file",
    summary="Upload a file",
    status_code=201,
    responses=problems(),
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "The bytes of the file.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def upload_file(
    request: Request,
    principal: FilesUploader,
    services: ServicesDep,
    name: Annotated[str, Query(min_length=1, max_length=255, description="Plain file name.", examples=["app.log"])],
) -> FileOut:
    """The body is the file, as it is; no form. It may then be named in POST /runs, by anybody in your tenant."""
    clean = safe_name(name, "query.name")
    if services.redacts.text(clean) != clean:
        # The name would stand in lists, logs and records.
        raise invalid("query.name", "it holds a secret or personal data", "give the file another name")
    limit = services.settings.upload_bytes
    try:
        stored = await services.files.add(
            principal.tenant, clean, request.stream(), media_type=_media_type(request), uploaded_by=principal.id,
            max_bytes=limit,
        )  # fmt: skip
    except BlobTooLarge:
        raise Refused(413, "too_large", f"the file is larger than {limit:,} bytes", remedy="split it") from None
    except ClientDisconnect:
        raise Refused(400, "bad_request", "the connection was lost before the whole file had arrived") from None
    return FileOut(id=stored.id, name=stored.name, size=stored.size, sha256=stored.sha256, media_type=stored.media_type)


def _media_type(request: Request) -> str:
    """What the client says the file is, if that is a media type at all; only ever shown, never acted on."""
    sent = request.headers.get("content-type", "").split(";")[0].strip().lower()
    return sent if _MEDIA_TYPE.fullmatch(sent) else "application/octet-stream"
