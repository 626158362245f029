"""Prints what it is given and the secret it was trusted with, as careless programs do."""

import base64
import json
import sys
import urllib.parse

value = json.load(sys.stdin)["arguments"]["value"]
with open("/work/secrets/planted", encoding="utf-8") as file:
    secret = file.read()
spelt = {
    "plain": secret,
    "json": json.dumps(json.dumps({"k": secret})),
    "base64": base64.b64encode(f"user:{secret}".encode()).decode(),
    "url": urllib.parse.quote(secret, safe=""),
}
print(spelt, file=sys.stderr)
print(json.dumps({"noted": value, **spelt}))
