"""Leaves one line for every time it runs: the effect that fault tests count. Only the first time it then works long."""

import json
import os
import sys
import time

call = json.load(sys.stdin)
os.makedirs("out", exist_ok=True)
mark = call["arguments"]["mark"]
with open("out/marks.log", "a+", encoding="utf-8") as marks:
    marks.seek(0)
    again = f"{mark}\n" in marks.readlines()
    marks.write(f"{mark}\n")
    marks.flush()
    os.fsync(marks.fileno())
if not again:
    time.sleep(call["arguments"].get("seconds", 0))
print(json.dumps({"marked": mark}))
