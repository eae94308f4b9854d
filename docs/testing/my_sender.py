from trio_dicom import CStoreOptions, CStoreSCU


async def send_all(association, datasets):
    """The code to be tested: sends data sets, and tries each again where that may help."""
    scu = CStoreSCU(association, CStoreOptions(timeout=20, max_retries=3))
    for dataset in datasets:
        response = await scu.send(dataset)
        response.raise_for_status()
