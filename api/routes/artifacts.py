"""Files a run left under `out/`: the list, and each as a download that no browser will run."""

from typing import Annotated

from fastapi import APIRouter, Header, Path
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from api import ranges
from api.auth import ArtifactsReader
from api.errors import Refused, not_found, problems
from api.limits import attachment
from api.services import Services, ServicesDep
from policies.decision import Principal
from workflows.contracts import ArtifactRef

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter(prefix="/runs/{run_id}/artifacts", tags=["runs"])

RunId = Annotated[str, Path(max_length=64, examples=["run_01kb2m0000000000000000000"])]


class ArtifactsOut(BaseModel):
    """All artifacts of a run; empty until it has ended."""

    items: list[ArtifactRef]


@router.get("", operation_id="list_artifacts", summary="What a run left", responses=problems(404))
async def list_artifacts(run_id: RunId, principal: ArtifactsReader, services: ServicesDep) -> ArtifactsOut:
    """By name."""
    return ArtifactsOut(items=sorted(await _artifacts(services, principal, run_id), key=lambda a: a.name))


@router.get(
    "/{name:path}",
    operation_id="get_artifact",
    summary="Download an artifact",
    response_class=Response,
    responses=problems(404, 416)
    | {
        200: {"description": "The bytes.", "content": _BYTES},
        206: {"description": "The part that `Range` asked for; `Content-Range` names it.", "content": _BYTES},
        304: {"description": "You have it already (`If-None-Match`)."},
    },
)
async def get_artifact(
    run_id: RunId,
    name: Annotated[str, Path(max_length=1024, examples=["report.md"])],
    principal: ArtifactsReader,
    services: ServicesDep,
    if_none_match: Annotated[str | None, Header(max_length=1000, description="An `ETag` you hold.")] = None,
    range_: Annotated[
        str | None, Header(alias="Range", max_length=100, description="One range of bytes, such as `bytes=1000-`.")
    ] = None,
    if_range: Annotated[
        str | None, Header(max_length=1000, description="The range counts only if this is still the `ETag`.")
    ] = None,
) -> Response:
    """Streamed, whole or one range of it. `ETag` is the SHA-256 of the content; the media type is always octet-stream
    and never sniffed: what a run wrote must not act in a browser."""
    found = next((a for a in await _artifacts(services, principal, run_id) if a.name == name), None)
    if found is None:
        raise not_found("artifact", name)
    headers = {
        "ETag": f'"{found.sha256}"',
        "Content-Disposition": attachment(found.name),
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, immutable",
        "Accept-Ranges": "bytes",
    }
    if if_none_match is not None and found.sha256 in if_none_match:
        return Response(status_code=304, headers=headers)
    if not await services.blobs.has(found.sha256):
        raise Refused(404, "blob_missing", f"the content of `{name}` is no longer in the blob store")
    content = services.blobs.open(found.sha256)
    some = ranges.asked(range_, found.size) if if_range in (None, headers["ETag"]) else None
    start, end = some or (0, found.size)
    headers["Content-Length"] = str(end - start)
    if some is None:
        return StreamingResponse(content, media_type="application/octet-stream", headers=headers)
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{found.size}"
    return StreamingResponse(
        ranges.part(content, start, end), 206, media_type="application/octet-stream", headers=headers
    )  # fmt: skip


async def _artifacts(services: Services, principal: Principal, run_id: str) -> tuple[ArtifactRef, ...]:
    run = await services.runs.get(principal.tenant, run_id)
    if run is None:
        raise not_found("run", run_id)
    return run.result.artifacts if run.result else ()
