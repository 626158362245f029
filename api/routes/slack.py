"""Where Slack tells of pressed buttons. Opened by Slack's signature over the raw body, not by a key."""

from datetime import UTC, datetime

import structlog
from fastapi import APIRouter, BackgroundTasks, Request
from starlette.responses import Response

from api.errors import Refused
from api.services import ServicesDep
from api.slack import answer_press, press_of, signed_by_slack

router = APIRouter(prefix="/slack", tags=["approvals"])

log = structlog.get_logger(__name__)


@router.post("/actions", operation_id="press_in_slack", include_in_schema=False)
async def slack_actions(request: Request, services: ServicesDep, after: BackgroundTasks) -> Response:
    """200 within Slack's three seconds; what became of the press goes to the message's response address."""
    secret = services.settings.slack_signing_secret
    if secret is None:
        remedy = "set GATEHOUSE_SLACK_SIGNING_SECRET to the signing secret of your Slack app"
        raise Refused(404, "not_found", "buttons in Slack are not set up here", remedy=remedy)
    body = await request.body()
    stamp, signature = (request.headers.get(f"x-slack-{name}") for name in ("request-timestamp", "signature"))
    if not signed_by_slack(secret.get_secret_value(), stamp, signature, body, datetime.now(UTC)):
        address = request.client.host if request.client else "unknown"
        services.rates.count(address=address)
        log.warning("slack.bad_signature", client=address)
        raise Refused(401, "bad_signature", "this was not signed by your Slack app within the last five minutes",
                      remedy="compare GATEHOUSE_SLACK_SIGNING_SECRET, and this machine's clock")  # fmt: skip
    try:
        press = press_of(body)
    except ValueError as error:
        raise Refused(400, "bad_request", "this cannot be read as a press of a button in Slack") from error
    if press is not None:
        after.add_task(answer_press, services, press)
    return Response(status_code=200, background=after)
