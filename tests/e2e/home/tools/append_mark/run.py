"""Leaves one line for every time it runs: the effect that fault tests count."""

import json
import os
import sys
import time

call = json.load(sys.stdin)
os.makedirs("out", exist_ok=True)
with open("out/marks.log", "a", encoding="utf-8") as marks:
    marks.write(call["arguments"]["mark"] + "\n")
    marks.flush()
    os.fsync(marks.fileno())
time.sleep(call["arguments"].get("seconds", 0))
print(json.dumps({"marked": call["arguments"]["mark"]}))
