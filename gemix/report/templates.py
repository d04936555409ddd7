"""The environment of the HTML templates: everything inline, text escaped."""

from __future__ import annotations

import base64

import jinja2


def environment() -> jinja2.Environment:
    """Return an environment of the templates in this folder; an unknown name is an error."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("gemix", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters["png"] = lambda data: data_uri(data, "image/png")
    return found


def data_uri(data: bytes, media_type: str) -> str:
    """Return a URI that holds the data itself."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"
