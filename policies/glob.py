"""The one pattern language of policy rows: anchored, over ASCII names, without backtracking.

Casbin's own matchers are not used: `keyMatch` stops reading at the first `*` (`*/read` matches `fs/delete`), and
`globMatch` skips names that start with a dot, so that a deny row on `/ws/*` misses `/ws/.env`.
"""


def glob(name: str, pattern: str) -> bool:
    """Whether the whole of `name` fits: `*` is any run of characters, `?` exactly one, everything else itself.

    Time is at most len(name) times len(pattern): one remembered star is enough, so there is nothing to blow up.
    """
    if pattern == "*" or pattern == name:
        return True
    n = p = 0
    star = mark = -1
    while n < len(name):
        if p < len(pattern) and pattern[p] == "*":
            star, mark = p, n
            p += 1
        elif p < len(pattern) and pattern[p] in ("?", name[n]):
            n += 1
            p += 1
        elif star >= 0:
            mark += 1
            n, p = mark, star + 1
        else:
            return False
    return all(c == "*" for c in pattern[p:])


def any_glob(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether `name` fits one of `patterns`; none for no patterns."""
    return any(glob(name, pattern) for pattern in patterns)
