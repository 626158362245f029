"""Puts what it is given everywhere a program can put it: a file's name and content, both outputs, its failure."""

import json
import os
import sys

call = json.load(sys.stdin)
value = call["arguments"]["value"]
os.makedirs("out", exist_ok=True)
with open(os.path.join("out", f"{value}.txt"), "w", encoding="utf-8") as file:
    file.write(value)
print(f"wrote {value}", file=sys.stderr)
if call["arguments"].get("fail"):
    sys.exit(f"could not send to {value}")
print(json.dumps({"wrote": value}))
