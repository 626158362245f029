"""Asks the service whether it knows the charge; a host that is not declared is refused on the way."""

import json
import sys
import urllib.error
import urllib.request

call = json.load(sys.stdin)
try:
    urllib.request.urlopen("http://other.test.example/", timeout=10)
except urllib.error.HTTPError as error:
    refused = error.code == 403
url = "http://api.test.example:443/charges/" + call["arguments"]["account"]
said = urllib.request.urlopen(url, timeout=10).read().decode()
if refused and said == "hello":
    print(json.dumps({"happened": True, "output": {"charged": call["arguments"]["account"], "found": True}}))
