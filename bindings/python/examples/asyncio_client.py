"""Many connections at once."""

import asyncio
import sys

import peersock


async def ask(number: int) -> str:
    reader, writer = await asyncio.open_connection(sys.argv[2], 7000)
    writer.write(f"hello {number}\n".encode())
    answer = await reader.readline()
    writer.close()
    return answer.decode().strip()


async def main() -> None:
    async with peersock.Session(sys.argv[1]):
        with peersock.patched():
            for answer in await asyncio.gather(*map(ask, range(20))):
                print(answer)


asyncio.run(main())
