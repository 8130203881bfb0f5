"""Serves the pages under ``$PERENNIAL_STATE/reports`` to people who are logged in to Airflow."""

from __future__ import annotations

from airflow.api_fastapi.core_api.security import get_user
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import Response

from perennial.errors import UsageError
from perennial.settings import settings
from perennial.storage import open_store
from perennial_airflow import aws

_TYPES = {".html": "text/html; charset=utf-8", ".json": "application/json", ".png": "image/png", ".md": "text/markdown"}
#: Evidently's pages need scripts, and pages show text from data: a sandbox keeps both away from the login's cookie.
_HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox allow-scripts"}


def build_app() -> FastAPI:
    """The app that is mounted under ``/perennial``; every path needs a login."""
    app = FastAPI(dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/reports/{path:path}")
    def report(path: str) -> Response:
        kind = next((t for suffix, t in _TYPES.items() if path.endswith(suffix)), None)
        if kind is None:
            raise HTTPException(404, "no such report")
        try:
            aws.use_connection()
            body = open_store(settings().state).get(f"reports/{path}")
        except (KeyError, UsageError):
            raise HTTPException(404, "no such report") from None
        return Response(body, media_type=kind, headers=_HEADERS)

    return app
