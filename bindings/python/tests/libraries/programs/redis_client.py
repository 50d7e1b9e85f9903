"""Values of several sizes through redis-py, plain, in pipelines, by asyncio, and published."""

from __future__ import annotations

import asyncio
import sys

import redis
import redis.asyncio
from common import SIZES, data


def blocking(host: str, port: int) -> None:
    client = redis.Redis(host, port, socket_timeout=60)
    for seed, size in enumerate(SIZES):
        client.set(f"key{seed}", data(seed, size))
    for seed, size in enumerate(SIZES):
        assert client.get(f"key{seed}") == data(seed, size)
    pipeline = client.pipeline()
    for number in range(1000):
        pipeline.rpush("list", number)
    assert pipeline.execute() == list(range(1, 1001))
    assert client.lrange("list", 0, -1) == [str(number).encode() for number in range(1000)]
    subscriber = client.pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe("news")
    while subscriber.get_message(timeout=60) is not None:
        pass
    client.publish("news", data(7, 1000))
    while (message := subscriber.get_message(timeout=60)) is None:
        pass
    assert message["data"] == data(7, 1000)
    client.close()


async def tasks(host: str, port: int) -> None:
    client = redis.asyncio.Redis(host=host, port=port)
    await asyncio.gather(*(client.set(f"task{seed}", data(seed, 5000)) for seed in range(50)))
    values = await asyncio.gather(*(client.get(f"task{seed}") for seed in range(50)))
    assert values == [data(seed, 5000) for seed in range(50)]
    await client.aclose()


if __name__ == "__main__":
    address = sys.argv[1], int(sys.argv[2])
    blocking(*address)
    asyncio.run(tasks(*address))
    print("ok")
