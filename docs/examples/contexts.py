import sys

import trio

from trio_dicom import CStoreSCU, PresentationContext, open_association

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"


async def main(peer, path):
    contexts = [
        # One context for each transfer syntax: the peer accepts or refuses each of them for itself.
        PresentationContext(CT_IMAGE_STORAGE, [JPEG_2000_LOSSLESS]),
        # Several in one context: the peer chooses one of them.
        PresentationContext(CT_IMAGE_STORAGE, [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]),
    ]
    async with open_association(peer, contexts) as association:
        for context in association.negotiated.contexts_for(CT_IMAGE_STORAGE):
            print(f"context {context.context_id}: {context.transfer_syntax}")
        for context in association.negotiated.rejected:
            print(f"rejected: {context.abstract_syntax}, {context.transfer_syntaxes}")
        return await CStoreSCU(association).send(path)


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])
