"""Every setting of the product, read once at start from `GATEHOUSE_*` environment variables and handed down.

Nothing below a composition root (`worker/main.py`, `api/app.py`, `api/cli.py`) reads the environment.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from policies.redaction.placeholders import Level
from worker.sandbox.facts import Runtime


class Settings(BaseSettings):
    """Defaults fit one machine: SQLite and a Temporal dev server, everything under `data`."""

    model_config = SettingsConfigDict(env_prefix="GATEHOUSE_", env_nested_delimiter="__", frozen=True)

    data: Path = Path(".gatehouse")
    """State of this installation: databases, blobs, keys, logs, Temporal's file."""
    home: Path | None = None
    """The user's own `automations/`, `tools/` and `rules/`; searched after the built-in ones."""
    database_url: str | None = None
    """SQLAlchemy URL; SQLite under `data` when unset. PostgreSQL: `postgresql+psycopg://user@host/db`."""
    temporal_address: str = "127.0.0.1:7233"
    temporal_namespace: str = "default"
    temporal_ui: str = "http://127.0.0.1:8233"
    """Base address of the Temporal UI, for links only."""
    api_host: str = "127.0.0.1"
    api_port: int = 8080
    public_url: str | None = None
    """Address people reach the API at, such as `https://gatehouse.example.org`; needed behind a proxy and for OIDC."""
    oidc_issuer: str | None = None
    """OpenID Connect provider whose users may sign in, exactly as it calls itself; with `oidc_client_id`."""
    oidc_client_id: str | None = None
    oidc_client_secret: SecretStr | None = None
    """Left out for a public client: PKCE is used in any case."""
    oidc_audience: str | None = None
    """Audience of access tokens that may be sent instead of API keys; none are taken when unset. Never the client id:
    an ID token is no access token."""
    oidc_name: str = "your organisation"
    oidc_scopes: str = "openid profile email"
    oidc_principal_claim: str = "sub"
    """Claim that becomes the principal's id. The same id is the same person, whichever way they came in."""
    oidc_roles_claim: str = "groups"
    oidc_roles: dict[str, str] = Field(default_factory=dict)
    """JSON: value of that claim -> role here. Who holds none of them may not sign in."""
    oidc_tenant: str = "default"
    oidc_tenant_claim: str | None = None
    """Claim that names the tenant; `oidc_tenant` is everybody's when unset."""
    slack_signing_secret: SecretStr | None = None
    """Of the Slack app whose buttons may be pressed; none are taken when unset."""
    notices_days: int = Field(default=30, ge=1)
    """Deliveries that arrived or were dismissed are forgotten after that many days; dead ones never."""
    console_idle_minutes: int = Field(default=60, ge=1)
    """A console session unused for that long is over."""
    console_session_hours: int = Field(default=12, ge=1)
    """A console session is over after that long in any case."""
    upload_bytes: int = 256 << 20
    """Largest file the API takes."""
    rate_key: str = "6000/minute"
    """Requests one API key may send to one API process; "" lifts the limit."""
    rate_tenant: str = "30000/minute"
    rate_unknown: str = "120/minute"
    """Wrong keys one address may send; more of them get 429 and leave no record."""
    artifacts: str | None = None
    """Where artifacts, uploads and large payloads lie: `s3://bucket/prefix`; a folder under `data` when unset. All
    processes must be told the same."""
    artifacts_endpoint: str | None = None
    """Base address of an S3-compatible service; Amazon's when unset."""
    artifacts_region: str | None = None
    artifacts_access_key: SecretStr | None = None
    artifacts_secret_key: SecretStr | None = None
    """Unset: what the host offers (instance role, web identity, `AWS_*`)."""
    encryption_keys: Path | None = None
    """File with the data keys (payloads in Temporal, blobs at rest). Unset, the installation makes its own under
    `keys`, which `environment` `production` does not accept."""
    plain_payloads: bool | None = None
    """Whether payloads of before encryption are read in histories; unset: yes, but not in `production`."""
    docker_host: str | None = None
    """Docker engine address; the SDK's default (DOCKER_HOST, then the local socket) when unset."""
    sandbox_runtime: Runtime = "auto"
    """`auto`: gVisor (runsc) where the engine offers it and the self-test passes. `runsc`: that or no tool runs."""
    sandbox_wait_s: float = Field(default=120.0, ge=1)
    """How long a tool call may wait for a sandbox worker to take it, before the run goes on without."""
    engine_patience_s: float = 15.0
    """How long calls wait for a Docker engine that went away, a restart for instance, before they fail."""
    egress_hosts: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts opened for tools that declare `egress: ["*"]`, separated by commas; none when unset."""
    secrets_dir: Path | None = None
    """Folder with one file a secret, for tools. Before it counts `GATEHOUSE_SECRET_<NAME>`, after it Vault."""
    vault_url: str | None = None
    """HashiCorp Vault with secrets of tools in a key-value engine of version 2."""
    vault_token: SecretStr | None = None
    vault_token_file: Path | None = None
    """Read at each request; an agent may renew it."""
    vault_mount: str = "secret"
    vault_path: str = "gatehouse"
    """Secret `x` is the field `value` of `<vault_mount>/<vault_path>/x`."""
    practice_model_url: str | None = None
    """Base URL of the practice model (no intelligence, fixed rules). Models `practice:*` exist only when it is set."""
    openai_api_key: SecretStr | None = Field(default=None, validation_alias="OPENAI_API_KEY")
    openai_base_url: str | None = Field(default=None, validation_alias="OPENAI_BASE_URL")
    anthropic_api_key: SecretStr | None = Field(default=None, validation_alias="ANTHROPIC_API_KEY")
    anthropic_base_url: str | None = Field(default=None, validation_alias="ANTHROPIC_BASE_URL")
    model_timeout_s: float = 60.0
    """Wall clock for one model request attempt."""
    privacy: Literal["secrets", "personal"] = "personal"
    """What the audit log, logs, failures, names of files and views for others than the requester are kept free of:
    secrets always, personal data unless this says `secrets`."""
    model_privacy: Level = "personal"
    """What model providers see as placeholders only: `personal` (secrets and personal data), `secrets`, or `off`."""
    environment: str = "default"
    """What conditions of policy rules see as `environment`, such as `staging`. `production` is also stricter about
    keys: none is made by itself."""
    policy_strict: bool = False
    """Two people for every change of the policy; rules files count only for the very first one."""
    policy_tenant: str = "default"
    """The policy is one for all tenants: only principals of this one may see it whole, propose and apply."""
    audit_anchor: Path | None = None
    """Append-only file that signed checkpoints of the audit log go to; best on another disk or machine. Under `data`
    when unset."""
    audit_anchor_s3: str | None = None
    """`s3://bucket/prefix` that the anchor is copied to, reached as `artifacts` is; lock its objects there."""
    audit_anchor_webhook: str | None = None
    """Address that each line of the anchor is posted to."""
    audit_anchor_syslog: str | None = None
    """`udp://host:514`: a syslog server that each signed checkpoint is sent to."""
    retention_days: int | None = Field(default=None, ge=1)
    """Bodies of audit records of runs that closed longer ago are removed; never when unset."""
    retention_tenants: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    """JSON: tenant -> days, where they differ."""
    log_level: str = "INFO"
    metrics_address: str | None = Field(default=None, pattern=r"^[^\s/]+:[0-9]{2,5}$")
    """`host:port` where the runs worker serves `/metrics` for Prometheus; models, sandbox, keeper: the next three."""

    @field_validator("egress_hosts", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        return [host.strip() for host in value.split(",") if host.strip()] if isinstance(value, str) else value

    @property
    def sql_url(self) -> str:
        """The URL in force."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data.resolve() / 'gatehouse.db'}"

    @property
    def blobs(self) -> Path:
        """Content-addressed files: artifacts, tool programs, large payloads. With `artifacts` set, only the spool."""
        return self.data / "blobs"

    @property
    def keys(self) -> Path:
        """Private and public keys of this installation (mode 0700)."""
        return self.data / "keys"

    @property
    def anchor(self) -> Path:
        """Where checkpoints of the audit log are published."""
        return self.audit_anchor or self.data / "anchor" / "audit.jsonl"
