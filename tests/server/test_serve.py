"""What the server sets on its sockets."""

from __future__ import annotations

import gc
import socket

import uvicorn

from server.app import create_app
from server.serve import Server, uvicorn_config
from server.settings import Settings
from server.uvicorn_http import UNSENT_BYTES
from tests.support.served import handshake, raw_client


async def test_the_kernel_gives_a_dead_peer_up_after_15_s_and_keeps_little_for_a_slow_one() -> None:
    node = create_app(Settings(dev=True))
    server = Server(uvicorn_config(node), node)
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    thresholds = gc.get_threshold()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        await server.startup([listener])
        try:
            async with raw_client(listener.getsockname()[1], handshake()) as client:
                assert (await client.head())[0] == 101
                (connection,) = server.server_state.connections
                sock = connection.transport.get_extra_info("socket")
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
                assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES
        finally:
            await uvicorn.Server.shutdown(server, [listener])  # ours would end this process, too
            gc.unfreeze()
            gc.set_threshold(*thresholds)
