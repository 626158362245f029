"""What lies under the data folder, and which models can be asked."""

import asyncio
import stat
from pathlib import Path

from api.doctor.finding import Finding, fail, ok, warn
from api.supervisor import addresses
from worker.settings import Settings
from worker.store.database import Database, StoreUnavailable
from worker.store.migration import HEAD


def store(settings: Settings) -> list[Finding]:
    """Does the database answer, and is its schema the one this version needs?"""
    if settings.database_url is None and not (settings.data / "gatehouse.db").exists():
        return [ok("store", "none yet: made at the first start")]

    async def check() -> None:
        database = Database(settings.sql_url)
        try:
            await database.check()
        finally:
            await database.close()

    try:
        asyncio.run(check())
    except (StoreUnavailable, ValueError) as error:
        return [fail("store", str(error), "gatehouse up migrates it; otherwise correct GATEHOUSE_DATABASE_URL")]
    return [ok("store", f"{settings.sql_url.split('://', 1)[0]} answers, schema {HEAD}")]


def keys(settings: Settings) -> list[Finding]:
    """May nobody else read the installation's keys?"""
    folder = settings.keys
    if not folder.exists():
        return [ok("keys folder", "none yet: made at the first start")]
    loose = [p for p in (folder, *sorted(folder.rglob("*"))) if _readable_by_others(p)]
    if loose:
        remedy = f"chmod -R go-rwx {folder.resolve()}"
        return [fail("keys folder", f"others may read {', '.join(p.name for p in loose)}", remedy)]
    return [ok("keys folder", f"{folder.resolve()}, for its owner alone")]


def _readable_by_others(path: Path) -> bool:
    # Public keys are public; what protects the rest is the folder.
    if path.suffix in {".pub", ".json"} and path.is_file():
        return False
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def models(settings: Settings) -> list[Finding]:
    """Which providers have a key. Never the key."""
    running = addresses.read(settings.data)
    configured = [
        name
        for name, present in (
            ("OpenAI", settings.openai_api_key),
            ("Anthropic", settings.anthropic_api_key),
            ("practice model (no intelligence)", settings.practice_model_url or running.get("practice_model")),
        )
        if present
    ]
    if configured:
        return [ok("models", ", ".join(configured))]
    remedy = (
        "set OPENAI_API_KEY or ANTHROPIC_API_KEY where `gatehouse up` runs; until then rules and humans do the work"
    )
    return [warn("models", "no provider has a key", remedy)]
