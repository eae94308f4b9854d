from trio_dicom import open_sender


async def transfer(peer, items, **options):
    """The code to be tested: sends `items`, and returns the reports of those that did not arrive."""
    async with open_sender(peer, **options) as sender, sender.send_many(items) as reports:
        return [report async for report in reports if not report.is_delivered]
