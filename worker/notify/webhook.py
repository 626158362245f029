"""Notices to programs: JSON, signed after Standard Webhooks. Also posts to Slack, whose incoming webhooks are the same
kind of request.

The address is resolved once and the connection made to what was vetted; redirects are not followed (they could lead
inside), nothing of the environment (proxies) counts, and of the answer only a little is read.
"""

import asyncio
import json
import ssl
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
from standardwebhooks import Webhook
from standardwebhooks.webhooks import EmptyWebhookSecretError

from tools.contract import JsonObject
from worker.notify.sending import SEND_S, NotDelivered
from worker.sandbox.addresses import NotPublic, Resolve, Unresolved
from worker.store import times
from worker.store.outbox import Notice

ANSWER_BYTES = 2048
GONE = 410
"""The receiver says that it is no more."""


class WebhookSender:
    """One webhook channel. Raises ValueError for a secret that is none."""

    def __init__(self, url: str, secret: str, resolve: Resolve, within_s: float = SEND_S) -> None:
        self._url = url
        try:
            self._webhook = Webhook(secret)
        except (ValueError, EmptyWebhookSecretError) as error:
            raise ValueError(f"the signing secret for {url} is none: {error}") from error
        self._resolve = resolve
        self._within_s = within_s

    async def send(self, notice: Notice) -> str:
        """See Sender. `webhook-id` is the notice's id, the same at each attempt."""
        body = json.dumps(message(notice), ensure_ascii=False)
        now = datetime.now(UTC)
        headers = {
            "webhook-id": notice.id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._webhook.sign(notice.id, now, body),
        }
        return await post(self._url, body.encode(), headers, self._resolve, self._within_s)


def message(notice: Notice) -> JsonObject:
    """The notice as programs get it."""
    # The digest of few and short arguments could be guessed at.
    told = {name: value for name, value in notice.body.items() if name != "digest"}
    data: JsonObject = {"id": notice.id, "tenant": notice.tenant, "run_id": notice.run_id, **told}
    return {"type": notice.type, "timestamp": times.to_text(notice.created_at), "data": data}


async def post(
    url: str, body: bytes, headers: dict[str, str], resolve: Resolve, within_s: float = SEND_S
) -> str:  # fmt: skip
    """POST JSON to a vetted address; `<status> <start of the answer>`. Raises NotDelivered for all but 2xx."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    try:
        target = (await resolve(host, port))[0]
    except NotPublic as error:
        raise NotDelivered(str(error), final=True) from error
    except Unresolved as error:
        raise NotDelivered(str(error)) from error
    address = httpx.URL(url).copy_with(host=target.address)
    sent = {"Host": parts.netloc, "Content-Type": "application/json", "User-Agent": "gatehouse", **headers}
    try:
        async with (
            asyncio.timeout(within_s),
            httpx.AsyncClient(trust_env=False, follow_redirects=False, timeout=within_s, verify=_tls()) as client,
            client.stream("POST", address, content=body, headers=sent, extensions={"sni_hostname": host}) as answer,
        ):
            told = await _start_of(answer)
    except TimeoutError as error:
        raise NotDelivered(f"no answer in {within_s:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        raise NotDelivered(f"{type(error).__name__}: {error}") from error
    said = f"{answer.status_code} {told}".strip()
    if answer.is_success:
        return said
    if answer.is_redirect:
        raise NotDelivered(f"{answer.status_code}: redirects are not followed", final=True)
    raise NotDelivered(said, final=answer.status_code == GONE)


async def _start_of(answer: httpx.Response) -> str:
    start = b""
    async for chunk in answer.aiter_raw():
        start += chunk
        if len(start) >= ANSWER_BYTES:
            break
    return start[:ANSWER_BYTES].decode(errors="replace")


def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
