"""Sends one HTTP request; redirects are reported, not followed. Runs only where a way out is given to it."""

import json
import sys
import urllib.error
import urllib.request

MAX_BODY = 1 << 20


class NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def main():
    arguments = json.load(sys.stdin)["arguments"]
    body = arguments.get("body")
    request = urllib.request.Request(
        arguments["url"],
        data=None if body is None else body.encode(),
        headers=arguments.get("headers", {}),
        method=arguments.get("method", "GET"),
    )
    try:
        response = urllib.request.build_opener(NoRedirect).open(request, timeout=25)
    except urllib.error.HTTPError as error:
        response = error
    except OSError as error:
        sys.exit(f"http_request: {error}")
    if "X-Egress-Refused" in response.headers:
        sys.exit(f"http_request: {response.read(2000).decode('utf-8', 'replace').strip()}")
    raw = response.read(MAX_BODY + 1)
    answer = {"status": response.status, "headers": dict(response.headers.items())}
    print(json.dumps({**answer, "body": raw[:MAX_BODY].decode("utf-8", "replace"), "truncated": len(raw) > MAX_BODY}))


main()
