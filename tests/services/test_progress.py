"""TransferProgress, and the channel that keeps the latest value and always delivers the last."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from trio_dicom import TransferProgress, open_progress_channel
from trio_dicom.services.progress import ProgressReporter


def at(bytes_sent: int, total: int | None = 1000, elapsed: float = 2.0, **changes: object) -> TransferProgress:
    return TransferProgress("1.2.3", bytes_sent, total, elapsed, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("progress", "rate", "percent", "eta"),
    [
        (at(0), 0, 0, None),
        (at(250), 125, 25, 6),
        (at(1000), 500, 100, 0),
        (at(250, None), 125, None, None),
        (at(250, 1000, 0.0), 0, 25, None),
        (at(250, None, is_complete=True), 125, 100, 0),
        (at(1000, is_complete=True), 500, 100, 0),
        (at(0, 0), 0, 100, None),
        (at(1200), 600, 120, 0),  # more came than was announced: the send fails for it
    ],
)
def test_what_follows_from_the_counts(
    progress: TransferProgress, rate: float, percent: float | None, eta: float | None
) -> None:
    assert progress.bytes_per_second == rate
    assert progress.percent == percent
    assert progress.eta == eta


def test_a_value_does_not_change() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        at(1).bytes_sent = 2  # type: ignore[misc]


async def test_only_the_latest_is_kept() -> None:
    send, receive = open_progress_channel()
    for count in range(10):
        send.send_nowait(at(count))
    assert (await receive.receive()).bytes_sent == 9
    send.send_nowait(at(10))
    assert (await receive.receive()).bytes_sent == 10


async def test_the_last_is_delivered_after_the_close() -> None:
    send, receive = open_progress_channel()
    send.send_nowait(at(500))
    send.send_nowait(at(1000, is_complete=True))
    send.close()
    assert [each.bytes_sent async for each in receive] == [1000]
    with pytest.raises(trio.EndOfChannel):
        await receive.receive()


async def test_an_observer_that_waits_is_woken(autojump_clock: trio.testing.MockClock) -> None:
    send, receive = open_progress_channel()
    seen = []

    async def observe() -> None:
        async for each in receive:
            seen.append((each.bytes_sent, trio.current_time()))
            await trio.sleep(2.25)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(observe)
        with send:
            for count in range(6):
                await trio.sleep(1)
                await send.send(at(count))
    assert seen == [(0, 1.0), (2, 3.25), (4, 5.5), (5, 7.75)]


async def test_a_close_wakes_an_observer() -> None:
    send, receive = open_progress_channel()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(trio.EndOfChannel):
                await receive.receive()

        await trio.testing.wait_all_tasks_blocked()
        await send.aclose()


async def test_a_cancelled_observer_has_lost_nothing() -> None:
    send, receive = open_progress_channel()
    with trio.CancelScope() as scope:
        scope.cancel()
        send.send_nowait(at(1))
        await receive.receive()
    assert scope.cancelled_caught
    assert (await receive.receive()).bytes_sent == 1


async def test_a_closed_end_says_so() -> None:
    send, receive = open_progress_channel()
    send.close()
    with pytest.raises(trio.ClosedResourceError):
        send.send_nowait(at(1))
    receive.close()
    with pytest.raises(trio.ClosedResourceError):
        await receive.receive()


async def test_an_observer_that_has_gone() -> None:
    send, receive = open_progress_channel()
    with receive:
        pass
    with pytest.raises(trio.BrokenResourceError):
        send.send_nowait(at(1))
    with pytest.raises(trio.BrokenResourceError):
        await send.send(at(1))
    await receive.aclose()


async def test_a_close_while_it_is_received_from() -> None:
    _send, receive = open_progress_channel()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await receive.receive()

        await trio.testing.wait_all_tasks_blocked()
        receive.close()


async def test_all_its_methods_are_checkpoints() -> None:
    send, receive = open_progress_channel()
    with trio.testing.assert_checkpoints():
        await send.send(at(1))
    with trio.testing.assert_checkpoints():
        await receive.receive()
    with trio.testing.assert_checkpoints():
        await send.aclose()
    with trio.testing.assert_checkpoints():
        await receive.aclose()


async def test_a_reporter_counts_from_its_start(autojump_clock: trio.testing.MockClock) -> None:
    await trio.sleep(5)
    send, receive = open_progress_channel()
    reporter = ProgressReporter(send, "1.2.3", 1000, attempt=2)
    await trio.sleep(4)
    reporter.report(100)
    assert await receive.receive() == TransferProgress("1.2.3", 100, 1000, 4.0, 2)
    reporter.report(1000, is_complete=True)
    assert await receive.receive() == TransferProgress("1.2.3", 1000, 1000, 4.0, 2, is_complete=True)


@pytest.mark.parametrize("gone", ["send", "receive"])
async def test_a_reporter_survives_its_observer(gone: str) -> None:
    send, receive = open_progress_channel()
    (send if gone == "send" else receive).close()
    ProgressReporter(send, "1.2.3", None, 1).report(100)


async def test_a_channel_that_fails_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    send, _receive = open_progress_channel()

    def broken(value: TransferProgress) -> None:
        raise KeyError("DOE^JOHN")

    send.send_nowait = broken  # type: ignore[method-assign]
    ProgressReporter(send, "1.2.3", None, 1).report(100)
    assert "KeyError" in caplog.text
    assert "DOE" not in caplog.text
