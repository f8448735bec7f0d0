from collections.abc import Mapping, Sequence

from django.urls import URLPattern

class URLRouter:
    def __init__(self, routes: Sequence[URLPattern]) -> None: ...

class ProtocolTypeRouter:
    def __init__(self, application_mapping: Mapping[str, URLRouter]) -> None: ...
