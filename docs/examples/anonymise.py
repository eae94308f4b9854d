import hmac
import sys

import trio

from trio_dicom import Outcome, open_sender

# A start: PS3.15 table E.1-1 has some hundred elements more. What else is to be removed is yours to say.
REMOVED = {
    "AdditionalPatientHistory",
    "ImageComments",
    "InstitutionAddress",
    "InstitutionName",
    "InstitutionalDepartmentName",
    "OtherPatientIDs",
    "OtherPatientIDsSequence",
    "PatientAddress",
    "PatientComments",
    "PatientTelephoneNumbers",
    "RequestAttributesSequence",
    "StationName",
    "StudyComments",
}


class Anonymiser:
    """Replaces what names a patient: always by the same for the same patient and UID, so that a study stays one."""

    def __init__(self, secret):
        self.secret = secret  # who knows it can find out whose a pseudonym is

    def digest(self, text):
        return hmac.digest(self.secret, text.encode(), "sha256")[:16]

    def uid(self, uid):
        if uid.startswith("1.2.840.10008."):  # the standard's own: classes, transfer syntaxes
            return uid
        return f"2.25.{int.from_bytes(self.digest(uid))}"

    def __call__(self, dataset):
        if dataset.get("BurnedInAnnotation") == "YES":
            raise ValueError("text in the pixels")  # this object is reported as invalid, and not sent
        pseudonym = self.digest(str(dataset.get("PatientID") or "")).hex()
        dataset.remove_private_tags()
        dataset.walk(self.clean)
        dataset.PatientID = dataset.PatientName = pseudonym
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = "docs/examples/anonymise.py"

    def clean(self, dataset, element):
        """Called for each element, those in sequences too."""
        if element.keyword in REMOVED:
            del dataset[element.tag]
        elif element.VR in ("PN", "DA", "DT", "TM") or element.keyword in ("AccessionNumber", "StudyID"):
            element.value = None
        elif element.VR == "UI" and element.value:
            element.value = [self.uid(uid) for uid in element.value] if element.VM > 1 else self.uid(element.value)


async def main(peer, folder, secret):
    anonymise = Anonymiser(secret.encode())
    async with open_sender(peer, transform=anonymise) as sender, sender.send_tree(folder) as reports:
        async for report in reports:
            if report.outcome is not Outcome.STORED:
                print(f"{report.path}: {report.outcome.value}, {report.reason}")
    return sender.report


if __name__ == "__main__":
    trio.run(main, *sys.argv[1:])  # RESEARCH@10.0.0.7:104 study/ "a long secret"
