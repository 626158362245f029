"""Check digits of cards, accounts and identity numbers, as their issuers define them. All take bare characters."""

import hashlib
from datetime import date

_IBAN_LENGTHS = {
    code: int(size)
    for size, codes in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH CR HR LI LV",
        22: "BG BH DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for code in codes.split()
}  # fmt: skip
_D = ((0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 2, 3, 4, 0, 6, 7, 8, 9, 5), (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
      (3, 4, 0, 1, 2, 8, 9, 5, 6, 7), (4, 0, 1, 2, 3, 9, 5, 6, 7, 8), (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
      (6, 5, 9, 8, 7, 1, 0, 4, 3, 2), (7, 6, 5, 9, 8, 2, 1, 0, 4, 3), (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
      (9, 8, 7, 6, 5, 4, 3, 2, 1, 0))  # fmt: skip
_P = ((0, 1, 2, 3, 4, 5, 6, 7, 8, 9), (1, 5, 7, 6, 2, 8, 3, 0, 9, 4), (5, 8, 0, 3, 7, 9, 6, 1, 4, 2),
      (8, 9, 1, 6, 0, 4, 3, 5, 2, 7), (9, 4, 5, 3, 1, 2, 6, 8, 7, 0), (4, 2, 8, 6, 5, 7, 3, 9, 0, 1),
      (2, 7, 9, 3, 8, 0, 6, 4, 1, 5), (7, 0, 4, 6, 9, 1, 3, 2, 5, 8))  # fmt: skip
_FISCAL_ODD = dict(zip("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21,
     2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23), strict=True))  # fmt: skip
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def luhn(digits: str) -> bool:
    """ISO/IEC 7812: payment cards, Swedish and Canadian personal numbers."""
    total = 0
    for at, char in enumerate(reversed(digits)):
        double = int(char) * (1 + at % 2)
        total += double - 9 if double > 9 else double
    return total % 10 == 0


def card(digits: str) -> bool:
    """A payment card's number: Luhn, and an issuer's prefix with a length that goes with it."""
    size, first = len(digits), digits[:1]
    two, four = digits[:2], digits[:4]
    issued = (
        (first == "4" and size in (13, 16, 19))
        or (size == 16 and ("51" <= two <= "55" or "2221" <= four <= "2720"))
        or (size == 15 and (two in ("34", "37") or four in ("1800", "2131")))
        or (size in (14, 16, 19) and ("300" <= digits[:3] <= "305" or two in ("36", "38", "39")))
        or (16 <= size <= 19 and (four == "6011" or two in ("35", "62", "64", "65", "81")))
        or (12 <= size <= 19 and (two in ("50", "56", "57", "58", "63", "67") or four == "0604"))
        or (size == 16 and "2200" <= four <= "2204")
    )
    return issued and luhn(digits) and len(set(digits)) > 1


def iban(text: str) -> bool:
    """ISO 13616: a country's length and mod 97."""
    text = text.upper()
    if _IBAN_LENGTHS.get(text[:2]) != len(text) or not text.isalnum():
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def ssn(digits: str) -> bool:
    """A United States social security number, or a taxpayer number of the same form, that can have been issued."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and group != "00" and serial != "0000" and (area < "900" or group >= "50")


def verhoeff(digits: str) -> bool:
    """Aadhaar."""
    check = 0
    for at, char in enumerate(reversed(digits)):
        check = _D[check][_P[at % 8][int(char)]]
    return check == 0


def dni(text: str) -> bool:
    """Spanish DNI and NIE: the letter is the number mod 23."""
    number = text[:-1].upper().translate(str.maketrans("XYZ", "012"))
    return number.isdigit() and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1].upper()


def fiscal_code(text: str) -> bool:
    """Italian codice fiscale."""
    text = text.upper()
    total = sum(
        _FISCAL_ODD[c] if at % 2 == 0 else (int(c) if c.isdigit() else ord(c) - 65) for at, c in enumerate(text[:15])
    )
    return chr(65 + total % 26) == text[15]


def nir(text: str) -> bool:
    """French social security number with its key."""
    number = text[:13].upper().replace("2A", "19").replace("2B", "18")
    return number.isdigit() and text[13:].isdigit() and 97 - int(number) % 97 == int(text[13:])


def cpf(digits: str) -> bool:
    """Brazilian CPF."""
    if len(set(digits)) == 1:
        return False
    for size in (9, 10):
        total = sum(int(d) * (size + 1 - at) for at, d in enumerate(digits[:size]))
        if total * 10 % 11 % 10 != int(digits[size]):
            return False
    return True


def pesel(digits: str) -> bool:
    """Polish PESEL: its date exists and its check digit fits."""
    total = sum(int(d) * w for d, w in zip(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3), strict=False))
    month = int(digits[2:4])
    century = {0: 1900, 1: 2000, 2: 2100, 3: 2200, 4: 1800}[month // 20]
    return (10 - total % 10) % 10 == int(digits[10]) and _is_date(
        century + int(digits[:2]), month % 20, int(digits[4:6])
    )


def bsn(digits: str) -> bool:
    """Dutch BSN."""
    return sum(int(d) * w for d, w in zip(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1), strict=True)) % 11 == 0


def nhs(digits: str) -> bool:
    """National Health Service number of the United Kingdom."""
    check = 11 - sum(int(d) * w for d, w in zip(digits, range(10, 1, -1), strict=False)) % 11
    return check % 11 == int(digits[9]) and check != 10


def nric(text: str) -> bool:
    """Singapore NRIC and FIN."""
    text = text.upper()
    total = sum(int(d) * w for d, w in zip(text[1:8], (2, 7, 6, 5, 4, 3, 2), strict=True))
    total += {"T": 4, "G": 4, "M": 3}.get(text[0], 0)
    table = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "F": "XWUTRQPNMLK", "G": "XWUTRQPNMLK", "M": "XWUTRQPNJLK"}[
        text[0]
    ]
    return table[total % 11] == text[8] if text[0] != "M" else text[8].isalpha()


def resident_id(text: str) -> bool:
    """Chinese resident identity number."""
    total = sum(int(d) * (2 ** (17 - at) % 11) for at, d in enumerate(text[:17]))
    if text[17].upper() != "10X98765432"[total % 11]:
        return False
    return _is_date(int(text[6:10]), int(text[10:12]), int(text[12:14]))


def hetu(text: str) -> bool:
    """Finnish personal identity code."""
    number = text[:6] + text[7:10]
    return "0123456789ABCDEFHJKLMNPRSTUVWXY"[int(number) % 31] == text[10].upper()


def personnummer(digits: str) -> bool:
    """Swedish, ten digits."""
    return 1 <= int(digits[2:4]) <= 12 and 1 <= int(digits[4:6]) % 60 <= 31 and luhn(digits)


def bitcoin(text: str) -> bool:
    """A base58 address with its check; bech32 ones by shape."""
    if text.startswith("bc1"):
        return True
    number = 0
    for char in text:
        number = number * 58 + _BASE58.index(char)
    raw = number.to_bytes(25, "big") if number < 1 << 200 else b""
    return bool(raw) and hashlib.sha256(hashlib.sha256(raw[:-4]).digest()).digest()[:4] == raw[-4:]


def _is_date(year: int, month: int, day: int) -> bool:
    try:
        date(year, month, day)
    except ValueError:
        return False
    return True
