"""Answers every line that comes in, to as many clients as there are: asyncio does not know of the overlay."""

import asyncio
import sys

import peersock


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    async for line in reader:
        writer.write(line.upper())
        await writer.drain()
    writer.close()


async def main() -> None:
    async with peersock.Session(sys.argv[1]) as session:
        with peersock.patched():
            server = await asyncio.start_server(answer, "::", 7000)
        print(session.address, flush=True)
        await server.serve_forever()


asyncio.run(main())
