"""Sets one flag: an effect that may be repeated."""

import json
import os
import sys
import time

call = json.load(sys.stdin)
time.sleep(call["arguments"].get("seconds", 0))
os.makedirs("out/flags", exist_ok=True)
with open(os.path.join("out/flags", call["arguments"]["mark"]), "w", encoding="utf-8"):
    pass
print(json.dumps({"set": call["arguments"]["mark"]}))
