"""Django Channels with the pub/sub layer of channels-redis."""

from __future__ import annotations

import django
from channels.generic.websocket import AsyncWebsocketConsumer
from channels.routing import ProtocolTypeRouter, URLRouter
from django.conf import settings
from django.urls import path

from loadtests.peers.offered import REDIS_URL, ROOM

settings.configure(
    ALLOWED_HOSTS=["*"],
    CHANNEL_LAYERS={
        "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": {"hosts": [REDIS_URL]}}
    },
    DEBUG=False,
    INSTALLED_APPS=["channels"],
    SECRET_KEY="for a load test on this machine",  # noqa: S106
)
django.setup()


class Member(AsyncWebsocketConsumer):
    async def connect(self) -> None:
        await self.channel_layer.group_add(ROOM, self.channel_name)
        await self.accept()
        await self.send(text_data="joined")

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(ROOM, self.channel_name)

    async def chat_message(self, event: dict[str, str]) -> None:
        await self.send(text_data=event["message"])


app = ProtocolTypeRouter({"websocket": URLRouter([path("ws", Member.as_asgi())])})
