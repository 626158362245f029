"""The API's page for people, drawn on the server from the OpenAPI document: needs no network and no scripts."""

import html
import json
from typing import Any, cast

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:1px solid #ccd}code,pre{font:13px/1.45 ui-monospace,monospace}
details{border:1px solid #ccd;border-radius:6px;margin:.5rem 0;padding:.4rem .8rem}summary{cursor:pointer}
pre{background:#f4f6f8;padding:.7rem;overflow:auto}table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;padding:.2rem .6rem .2rem 0;border-top:1px solid #e4e7eb}
.method{display:inline-block;min-width:4.2rem;font-weight:700}
@media(prefers-color-scheme:dark){body{background:#12161b;color:#dde3ea}pre{background:#1c232b}details,h2{border-color:#3a4450}}
"""


def page(spec: dict[str, Any]) -> str:
    """HTML of the whole document: one section a tag, one block an operation."""
    info = spec["info"]
    sections: dict[str, list[str]] = {str(tag["name"]): [] for tag in spec.get("tags", [])}
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            tag = str(operation.get("tags", ["other"])[0])
            sections.setdefault(tag, []).append(_operation(path, method, operation, spec))
    about = {str(tag["name"]): str(tag.get("description", "")) for tag in spec.get("tags", [])}
    body = "".join(
        f"<h2 id='{_e(tag)}'>{_e(tag)}</h2><p>{_e(about.get(tag, ''))}</p>{''.join(blocks)}"
        for tag, blocks in sections.items()
        if blocks
    )
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{_e(info['title'])}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style></head><body>"
        f"<h1>{_e(info['title'])} {_e(info['version'])}</h1><p>{_e(info.get('description', ''))}</p>"
        f"<p>Machine-readable: <a href='/api/openapi.json'>/api/openapi.json</a></p>{body}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any], spec: dict[str, Any]) -> str:
    parts = [f"<p>{_e(operation.get('description', ''))}</p>"]
    parameters = cast("list[dict[str, Any]]", operation.get("parameters", []))
    if parameters:
        rows = "".join(
            f"<tr><td><code>{_e(p['name'])}</code>{' *' if p.get('required') else ''}</td><td>{_e(p['in'])}</td>"
            f"<td>{_e(p.get('description', ''))}</td></tr>"
            for p in parameters
        )
        parts.append(f"<table><tr><th>parameter</th><th>in</th><th></th></tr>{rows}</table>")
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<p>Body <code>{_e(media)}</code></p><pre>{_e(_schema(content.get('schema', {}), spec))}</pre>")
    for status, response in operation.get("responses", {}).items():
        parts.append(f"<p><b>{_e(status)}</b> {_e(response.get('description', ''))}</p>")
        schema = response.get("content", {}).get("application/json", {}).get("schema")
        if schema:
            parts.append(f"<pre>{_e(_schema(schema, spec))}</pre>")
    name = _e(operation.get("operationId", ""))
    return (
        f"<details id='{name}'><summary><span class='method'>{_e(method.upper())}</span> "
        f"<code>{_e(path)}</code> {_e(operation.get('summary', ''))}</summary>{''.join(parts)}</details>"
    )


def _schema(schema: dict[str, Any], spec: dict[str, Any]) -> str:
    """The schema with its first reference opened, which is what a reader wants to see."""
    name = str(schema.get("$ref", "")).rsplit("/", 1)[-1]
    found = spec.get("components", {}).get("schemas", {}).get(name, schema)
    return json.dumps(found, indent=1)


def _e(value: object) -> str:
    return html.escape(str(value), quote=True)
