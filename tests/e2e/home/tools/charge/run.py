"""Charges; the service gets the call's key as its idempotency key, and the proxy adds the credential."""

import json
import sys
import time
import urllib.request

call = json.load(sys.stdin)
url = "http://api.test.example:443/charges/" + call["arguments"]["account"]
asked = urllib.request.Request(url, data=b"100", headers={"Idempotency-Key": call["key"]})
urllib.request.urlopen(asked, timeout=10).read()
time.sleep(call["arguments"].get("seconds", 0))
print(json.dumps({"charged": call["arguments"]["account"]}))
