import asyncio
import concurrent.futures
import contextlib
import sys

import trio

from trio_dicom import send_file


async def run_trio(async_function, *args):
    """Await `async_function(*args)`, a trio function, from asyncio: trio runs in a thread of its own.

    When the asyncio task is cancelled, so is the trio function, and its clean-up is waited for.
    """
    scope = trio.CancelScope()
    token = concurrent.futures.Future()

    async def in_scope():
        token.set_result(trio.lowlevel.current_trio_token())
        with scope:
            return await async_function(*args)

    work = asyncio.create_task(asyncio.to_thread(trio.run, in_scope))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        with contextlib.suppress(trio.RunFinishedError):
            (await asyncio.wrap_future(token)).run_sync_soon(scope.cancel)
        await asyncio.gather(work, return_exceptions=True)  # the association is aborted, in about a second at most
        raise


async def main(peer, path):
    response = await run_trio(send_file, peer, path)
    print(response.status.meaning)
    return response


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
