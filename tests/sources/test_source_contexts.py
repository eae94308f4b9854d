from __future__ import annotations

import os

import pytest

from sources.source_helpers import CT, DEFLATED, EXPLICIT, IMPLICIT, INSTANCE, JPEG, data_set, implicit, meta, uid
from trio_dicom.errors import InvalidObject, ReadError
from trio_dicom.protocol.negotiation import PresentationContext
from trio_dicom.sources.contexts import contexts_for

MR = "1.2.840.10008.5.1.4.1.1.4"


def write(path, syntax=EXPLICIT, sop_class=CT):
    body = data_set(sop_class)
    if syntax == IMPLICIT:
        body = implicit(8, 0x16, uid(sop_class)) + implicit(8, 0x18, uid(INSTANCE))
    path.write_bytes(meta(syntax, sop_class) + body)
    return path


async def test_one_context_for_each_class_and_transfer_syntax(tmp_path):
    paths = [
        write(tmp_path / "c", JPEG, MR),
        write(tmp_path / "a"),
        write(tmp_path / "b"),
        write(tmp_path / "d", IMPLICIT),
    ]
    assert await contexts_for(paths) == (
        PresentationContext(MR, (JPEG,)),
        PresentationContext(CT, (EXPLICIT,)),
        PresentationContext(CT, (IMPLICIT,)),
        PresentationContext(CT, (DEFLATED,)),
    )


@pytest.mark.parametrize("wrong", [b"DICM", [b"DICM"], [None]], ids=repr)
async def test_what_is_no_path(wrong):
    with pytest.raises(TypeError, match="a path is wanted, not"):
        await contexts_for(wrong)


async def test_native_files_could_be_encoded_anew(tmp_path):
    path = write(tmp_path / "a")
    both = (PresentationContext(CT, (EXPLICIT,)), PresentationContext(CT, (IMPLICIT, DEFLATED)))
    assert await contexts_for(path) == both
    assert await contexts_for(str(path)) == both
    assert await contexts_for(iter([path, path])) == both


async def test_directories_are_walked_in_the_order_of_names(tmp_path):
    for number in range(150):  # more than one hop
        (tmp_path / f"{number % 3}").mkdir(exist_ok=True)
        write(tmp_path / f"{number % 3}" / f"{number:03}", JPEG, f"1.2.{number % 3}.{number}")
    classes = [context.abstract_syntax for context in await contexts_for(tmp_path)]
    assert classes == [f"1.2.{folder}.{number}" for folder in range(3) for number in range(folder, 150, 3)]


async def test_links_to_directories_are_not_followed(tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "loop").symlink_to(tmp_path / "tree")
    write(tmp_path / "tree" / "a", JPEG)
    assert await contexts_for([tmp_path / "tree"]) == (PresentationContext(CT, (JPEG,)),)


async def test_files_that_cannot_be_sent(tmp_path):
    write(tmp_path / "a", JPEG)
    (tmp_path / "b").write_bytes(b"no such thing")
    with pytest.raises(InvalidObject, match="not a DICOM file"):
        await contexts_for([tmp_path])
    with pytest.raises(ReadError):
        await contexts_for([tmp_path / "missing"])
    before = len(os.listdir("/proc/self/fd"))
    assert await contexts_for([tmp_path, tmp_path / "missing"], skip_invalid=True) == (
        PresentationContext(CT, (JPEG,)),
    )
    assert len(os.listdir("/proc/self/fd")) == before
    assert await contexts_for([]) == ()
