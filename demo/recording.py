"""A `requests` adapter that tells the demo what became of each attempt of an exporter, and changes nothing."""

from __future__ import annotations

import re
import threading
import time
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from demo.events import emit

_REASON = re.compile(r"\[SSL: ([A-Z0-9_]+)\]")


def name_of(error: Exception) -> str:
    """The exception's class, and OpenSSL's reason where it has one: `SSLError CERTIFICATE_VERIFY_FAILED`."""
    reason = _REASON.search(str(error))
    return f"{type(error).__name__} {reason[1]}" if reason else type(error).__name__


class RecordingAdapter(HTTPAdapter):
    """Mounted into a session, it notes each answer; `current` is the push that this thread is sending."""

    def __init__(self) -> None:
        super().__init__()
        self.current = threading.local()

    def begin(self, push: str) -> None:
        """What this thread sends from now on is `push`."""
        self.current.push = push

    @property
    def began(self) -> float:
        """When this thread's last attempt started, on the monotonic clock."""
        began: float = self.current.began
        return began

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        push = self.current.push
        self.current.began = time.monotonic()
        try:
            response = super().send(request, *args, **options)
        except requests.RequestException as error:
            emit("attempt", id=push, status=0, code=name_of(error))
            raise
        if not response.ok:
            emit("attempt", id=push, status=response.status_code, code=response.headers.get("Qanat-Error", ""))
        return response
