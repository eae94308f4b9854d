"""The receiver of a soak: a Storage SCP that files what comes, unless it is to do something else with it."""

from __future__ import annotations

from pathlib import Path

import trio

from trio_dicom import Instance, InstanceFolder

from .parcel import Parcel, Treatment

LONGEST_PAUSE = 5.0  # s; it ends sooner, when the sender has left
PROCESSING_FAILURE = 0x0110  # by which the library answers for a handler that fails


class OnPurpose(Exception):
    """What a handler raises that is to fail."""


class Receiver:
    """The handler of a `StorageSCP`. `parcels` are those under way, by SOP Instance UID."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parcels: dict[str, Parcel] = {}
        self._store = InstanceFolder(folder).store

    async def __call__(self, instance: Instance) -> int:
        parcel = self.parcels[instance.sop_instance_uid]
        treatment = parcel.treatments.pop(0) if parcel.treatments else Treatment.STORE
        parcel.begun.set()
        if isinstance(treatment, int):
            if treatment >> 12 == 0xB:
                await self._store(instance)
            status = treatment
        else:
            status = await self._treat(treatment, parcel, instance)
        parcel.answers.append(status)
        return status

    async def _treat(self, treatment: Treatment, parcel: Parcel, instance: Instance) -> int:
        match treatment:
            case Treatment.RAISE:
                parcel.answers.append(PROCESSING_FAILURE)
                raise OnPurpose
            case Treatment.MUTE:
                parcel.answers.append(PROCESSING_FAILURE)
                await trio.sleep_forever()
            case Treatment.PAUSE:
                with trio.move_on_after(LONGEST_PAUSE):
                    await parcel.left.wait()
            case Treatment.ABORT_BEFORE:
                await instance.association.abort()
            case Treatment.ABORT_MIDDLE:
                await instance.receive_pieces()
                await instance.association.abort()
        status = (await self._store(instance)).status
        parcel.stored.set()
        match treatment:
            case Treatment.ABORT_AFTER:
                await instance.association.abort()
            case Treatment.LATE:
                with trio.move_on_after(LONGEST_PAUSE):
                    await parcel.left.wait()
        return int(status)

    def filed(self, uid: str) -> bytes | None:
        """The file of an object, if there is one."""
        try:
            return self._path(uid).read_bytes()
        except FileNotFoundError:
            return None

    def forget(self, uid: str) -> None:
        del self.parcels[uid]
        self._path(uid).unlink(missing_ok=True)

    def _path(self, uid: str) -> Path:
        return self.folder / f"{uid}.dcm"
