"""Takes secrets and personal data out of text and JSON before they are stored, logged, shown or sent away.

Found are tokens of published shapes, what stands under a name that means a secret, the very secrets this process
holds, and personal data of known shapes. This is a net, not a wall: a secret without shape, name or owner, and names of
people, pass through it. Pure; linear in its input.
"""

from policies.redaction.names import names_secret
from policies.redaction.redactor import MARK, Redactor, redact, redact_all, redact_json

__all__ = ["MARK", "Redactor", "names_secret", "redact", "redact_all", "redact_json"]
