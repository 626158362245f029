"""Makes tokens and personal data after their published formats, and clean text that looks a little like them."""

import base64
import json
import random
import string

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
URL = ALNUM + "-_"


def some(rng: random.Random, letters: str, size: int) -> str:
    return "".join(rng.choices(letters, k=size))


def b64(rng: random.Random, size: int) -> str:
    return base64.b64encode(rng.randbytes(size)).decode()


def jwt(rng: random.Random) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    return f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part({'sub': some(rng, ALNUM, 8), 'exp': 1})}.{some(rng, URL, 43)}"


def tokens(rng: random.Random) -> dict[str, str]:
    """One of each kind."""
    upper, uuid = string.ascii_uppercase + string.digits, "-".join(some(rng, HEX, n) for n in (8, 4, 4, 4, 12))
    return {
        "aws": rng.choice(["AKIA", "ASIA"]) + some(rng, string.ascii_uppercase + "234567", 16),
        "google": "AIza" + some(rng, URL, 35),
        "google-oauth": "GOCSPX-" + some(rng, URL, 28),
        "azure": some(rng, ALNUM, 3) + "8Q~" + some(rng, ALNUM, 34),
        "digitalocean": "dop_v1_" + some(rng, HEX, 64),
        "vault": "hvs." + some(rng, URL, 90),
        "doppler": "dp.st.prd." + some(rng, ALNUM, 43),
        "databricks": "dapi" + some(rng, HEX, 32),
        "github": rng.choice(["ghp_", "gho_", "ghs_", "ghu_", "ghr_"]) + some(rng, ALNUM, 36),
        "github-fine": "github_pat_" + some(rng, ALNUM, 22) + "_" + some(rng, ALNUM, 59),
        "gitlab": rng.choice(["glpat-", "gldt-", "glrt-", "glptt-", "glsoat-"]) + some(rng, URL, 20),
        "bitbucket": "ATBB" + some(rng, ALNUM, 32),
        "atlassian": "ATATT3xFfGF0" + some(rng, URL, 172) + "=" + some(rng, upper, 8),
        "npm": "npm_" + some(rng, ALNUM, 36),
        "pypi": "pypi-AgEIcHlwaS5vcmc" + some(rng, URL, 150),
        "docker": "dckr_pat_" + some(rng, URL, 27),
        "grafana": "glsa_" + some(rng, ALNUM, 32) + "_" + some(rng, HEX, 8),
        "newrelic": "NRAK-" + some(rng, upper, 27),
        "linear": "lin_api_" + some(rng, ALNUM, 40),
        "notion": "ntn_" + some(rng, ALNUM, 46),
        "postman": "PMAK-" + some(rng, HEX, 24) + "-" + some(rng, HEX, 34),
        "airtable": "pat" + some(rng, ALNUM, 14) + "." + some(rng, HEX, 64),
        "stripe": rng.choice(["sk_live_", "rk_test_", "sk_test_"]) + some(rng, ALNUM, 24),
        "stripe-hook": "whsec_" + some(rng, ALNUM, 32),
        "square": "sq0csp-" + some(rng, URL, 43),
        "shopify": "shpat_" + some(rng, HEX, 32),
        "plaid": "access-production-" + uuid,
        "slack": f"xoxb-{rng.randrange(10**11, 10**12)}-{rng.randrange(10**11, 10**12)}-{some(rng, ALNUM, 24)}",
        "slack-app": f"xapp-1-A{some(rng, upper, 10)}-{rng.randrange(10**12, 10**13)}-{some(rng, HEX, 64)}",
        "slack-hook": f"hooks.slack.com/services/T{some(rng, upper, 8)}/B{some(rng, upper, 10)}/{some(rng, ALNUM, 24)}",
        "discord": "MT" + some(rng, ALNUM, 22) + "." + some(rng, ALNUM, 6) + "." + some(rng, ALNUM, 38),
        "telegram": f"{rng.randrange(10**9, 10**10)}:AA{some(rng, URL, 33)}",
        "twilio": rng.choice(["AC", "SK"]) + some(rng, HEX, 32),
        "sendgrid": "SG." + some(rng, URL, 22) + "." + some(rng, URL, 43),
        "mailgun": "key-" + some(rng, HEX, 32),
        "mailchimp": some(rng, HEX, 32) + f"-us{rng.randrange(1, 22)}",
        "brevo": "xkeysib-" + some(rng, HEX, 64) + "-" + some(rng, ALNUM, 16),
        "openai": "sk-proj-" + some(rng, ALNUM, 60) + "T3BlbkFJ" + some(rng, ALNUM, 60),
        "anthropic": "sk-ant-api03-" + some(rng, URL, 93) + "AA",
        "openrouter": "sk-or-v1-" + some(rng, HEX, 64),
        "groq": "gsk_" + some(rng, ALNUM, 52),
        "huggingface": "hf_" + some(rng, ALNUM, 34),
        "replicate": "r8_" + some(rng, ALNUM, 37),
        "langsmith": "lsv2_pt_" + some(rng, HEX, 32) + "_" + some(rng, HEX, 10),
        "tailscale": "tskey-auth-" + some(rng, ALNUM, 12) + "CNTRL-" + some(rng, ALNUM, 32),
        "jwt": jwt(rng),
        "bcrypt": "$2b$12$" + some(rng, ALNUM + "./", 53),
        "ours": "gh_" + some(rng, ALNUM, 12) + "_" + some(rng, ALNUM, 43),
    }  # fmt: skip


def assigned(rng: random.Random, value: str) -> str:
    """The value under a name, as people write it."""
    name = rng.choice(["password", "DB_PASSWORD", "dbPassword", "api_key", "apiKey", "client_secret", "SECRET_KEY",
                       "access_token", "authToken", "aws_secret_access_key", "X-Api-Key", "ADMIN_PASS"])  # fmt: skip
    forms = ('{n}={v}', '{n} = {v}', '{n}: {v}', '{n} = "{v}"', '"{n}": "{v}"', "'{n}': '{v}'", "export {n}={v}",
             "{n}:={v}", 'set("{n}", "{v}")', "--{n} {v}", "--{n}={v}", '{{\\"{n}\\": \\"{v}\\"}}', "?{n}={v}&page=2",
             "<{n}>{v}</{n}>", "- name: {n}\n  value: {v}", "{n} => '{v}'", '["--{n}", "{v}"]')  # fmt: skip
    form = rng.choice(forms)
    return form.format(n=name, v=value)


def luhn(digits: str) -> str:
    """The digits with their check digit."""
    total = 0
    for at, char in enumerate(reversed(digits)):
        double = int(char) * (2 - at % 2)
        total += double - 9 if double > 9 else double
    return digits + str(-total % 10)


def iban(rng: random.Random) -> str:
    country, size, letters = rng.choice([("DE", 18, 0), ("FR", 23, 0), ("GB", 18, 4), ("NL", 14, 4), ("ES", 20, 0),
                                         ("CH", 17, 0), ("NO", 11, 0), ("IT", 23, 1), ("PL", 24, 0)])  # fmt: skip
    account = some(rng, string.ascii_uppercase, letters) + some(rng, string.digits, size - letters)
    number = int("".join(str(int(c, 36)) for c in account + country + "00"))
    whole = f"{country}{98 - number % 97:02d}{account}"
    return whole if rng.random() < 0.5 else " ".join(whole[at : at + 4] for at in range(0, len(whole), 4))


def personal(rng: random.Random) -> dict[str, str]:
    """One of each kind."""
    digits = string.digits
    card = luhn((rng.choice(["4", "52", "2301", "6011"]) + some(rng, digits, 15))[:15])
    if rng.random() < 0.5:
        card = rng.choice(" -").join(card[at : at + 4] for at in range(0, 16, 4))
    phone = rng.choice(["+1 {a}-555-{b}", "+49 30 {b}{a}", "+44 20 7946 {b}", "({a}) 555-{b}", "{a}-555-{b}",
                        "+336{b}{b}", "0{a} {b}{a}", "{a}.555.{b}", "+91 98765 4{b}"])  # fmt: skip
    name = some(rng, string.ascii_lowercase, 6)
    mailbox = f"{name}.{some(rng, string.ascii_lowercase, 5)}{rng.choice(['', '+list', '42'])}"
    return {
        "email": f"{mailbox}@{rng.choice(['mail', 'corp.eu'])}.{rng.choice(['com', 'org', 'co.uk', 'de'])}",
        "card": card,
        "iban": iban(rng),
        "phone": phone.format(a=rng.randrange(201, 989), b=f"{rng.randrange(1000, 9999)}"),
        "ssn": f"{rng.randrange(1, 665):03d}-{rng.randrange(1, 99):02d}-{rng.randrange(1, 9999):04d}",
        "ip": f"{rng.choice([8, 52, 93, 185])}.{rng.randrange(114, 255)}.{rng.randrange(256)}.{rng.randrange(1, 255)}",
        "ipv6": f"2a02:{some(rng, HEX, 4)}:{some(rng, HEX, 4)}::{some(rng, HEX, 3)}1",
    }  # fmt: skip


def clean(rng: random.Random) -> list[str]:
    """Lines without any secret or person in them."""
    sha, uuid = some(rng, HEX, 40), "-".join(some(rng, HEX, n) for n in (8, 4, 4, 4, 12))
    day = f"2026-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}"
    clock = f"{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}"
    number = rng.randrange(10**6)
    return [
        f"commit {sha}",
        f"Merge {sha[:7]} into {sha[8:15]}",
        f"index {sha[:7]}..{sha[9:16]} 100644",
        f"request {uuid} done",
        f"sha256:{some(rng, HEX, 64)}",
        f'"integrity": "sha512-{b64(rng, 64)}"',
        f"--hash=sha256:{some(rng, HEX, 64)} \\",
        f"h1:{b64(rng, 32)}",
        f"<img src='data:image/png;base64,iVBORw0KGgo{b64(rng, 300)}'>",
        f'etag: "{some(rng, HEX, 32)}"',
        f"{day}T{clock}.{number:06d}Z INFO worker started pid={number}",
        f"{day} {clock},{number % 1000:03d} DEBUG took {number / 1000} ms",
        f'10.0.{number % 250}.7 - - [{day}] "GET /v1/items?page={number}&limit=100 HTTP/1.1" 200 {number}',
        f'{{"max_tokens": {number}, "token_count": {number}, "input_tokens": 12, "temperature": 0.{number}}}',
        f"usage: prompt_tokens={number} completion_tokens={number} total_tokens={number}",
        f"next_page_token={b64(rng, 24)}",
        "token_type: bearer",
        f"password_policy: strict, password_min_length: {number % 20}",
        "def login(user, password=None, token: str = ''):",
        "password = get_password(user)",
        "self.token = token",
        "secret: ${DB_SECRET}",
        "api_key=os.environ['API_KEY']",
        "The token expired; reset your password.",
        f"Error: unexpected token '}}' at line {number}",
        f"version 4.18.{number % 90}.1 of Chrome/120.0.0.0",
        f"elapsed 0.{some(rng, string.digits, 16)}",
        f"order {number}-{number} total 19.99",
        f"epoch {1700000000000 + number} ns {1700000000000000000 + number}",
        f"cache_key: user:{number}:profile",
        f"primary_key=customer_{number}_id",
        f"public_key: {number}",
        f"https://example.org/docs/{uuid}?tab=tokens#password-reset",
        f"at com.example.auth.TokenService.refresh(TokenService.java:{number % 900})",
        f"0x{some(rng, HEX, 16)} in main () at main.c:{number % 900}",
        f"npm WARN deprecated left-pad@1.{number % 9}.0",
        f"icon@2x.png {number} bytes",
        f"git clone git@github.com:example/project.git # {number}",
        f"Subject: [{number}] key rotation of the secrets manager is planned for {day}",
        f"pod/api-{some(rng, HEX, 10)}-{some(rng, 'bcdfghjklm', 5)} 1/1 Running {number % 9}",
        f"{clock} up 12 days, load average: 0.{number % 90}, 1.17, 2.05",
        f"| {number} | {number} | {number % 97} |",
        f"rows={number} cost=0.00..{number}.17 width=32",
        f"volume vol-0{some(rng, HEX, 16)} attached to i-0{some(rng, HEX, 16)}",
        f"arn:aws:iam::123456789012:role/worker-{number}",
        f"run_01h{some(rng, 'abcdefghjkmnpqrstvwxyz0123456789', 22)}",
    ]
