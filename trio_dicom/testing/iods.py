"""What the IODs of PS3.3 ask of an instance, for the SOP classes of `make_instance`: the elements and their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .identity import SOPClass, instance_uid

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset

_COMMON: Mapping[str, Any] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "InstanceCreationDate": "20000101",
    "InstanceCreationTime": "120000",
    "StudyDate": "20000101",
    "StudyTime": "120000",
    "AccessionNumber": "",
    "Manufacturer": "trio_dicom.testing",
    "ReferringPhysicianName": "",
    "PatientName": "CANARY^PHI",
    "PatientID": "CANARY-PHI",
    "PatientBirthDate": "",
    "PatientSex": "O",
    "StudyID": "1",
}
_IMAGE: Mapping[str, Any] = {
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelRepresentation": 0,
    "PatientOrientation": "",
}
_PLANE: Mapping[str, Any] = {
    "PositionReferenceIndicator": "",
    "PatientPosition": "HFS",
    "SliceThickness": 1,
    "PixelSpacing": [1, 1],
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
}
_DOCUMENT: Mapping[str, Any] = {
    "ContentDate": "20000101",
    "ContentTime": "120000",
    "ReferencedPerformedProcedureStepSequence": [],
    "PerformedProcedureCodeSequence": [],
}
_BY_CLASS: Mapping[SOPClass, Mapping[str, Any]] = {
    SOPClass.CT: {
        **_IMAGE,
        **_PLANE,
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "KVP": 120,
        "AcquisitionNumber": 1,
        "RescaleIntercept": -1024,
        "RescaleSlope": 1,
    },
    SOPClass.MR: {
        **_IMAGE,
        **_PLANE,
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "OTHER"],
        "ScanningSequence": "SE",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "2D",
        "RepetitionTime": 500,
        "EchoTime": 10,
        "EchoTrainLength": 1,
    },
    SOPClass.US: {**_IMAGE, "Modality": "US", "ImageType": ["ORIGINAL", "PRIMARY"]},
    SOPClass.SC: {**_IMAGE, "Modality": "OT", "ConversionType": "SYN"},
    SOPClass.SR: {
        **_DOCUMENT,
        "Modality": "SR",
        "CompletionFlag": "COMPLETE",
        "VerificationFlag": "UNVERIFIED",
        "ValueType": "CONTAINER",
        "ContinuityOfContent": "SEPARATE",
    },
    SOPClass.KO: {
        **_DOCUMENT,
        "Modality": "KO",
        "ValueType": "CONTAINER",
        "ContinuityOfContent": "SEPARATE",
    },
    SOPClass.PR: {
        "Modality": "PR",
        "PresentationCreationDate": "20000101",
        "PresentationCreationTime": "120000",
        "ContentLabel": "TEST",
        "ContentDescription": "",
        "ContentCreatorName": "",
        "PresentationLUTShape": "IDENTITY",
    },
    SOPClass.PDF: {
        "Modality": "DOC",
        "ConversionType": "WSD",
        "BurnedInAnnotation": "NO",
        "ContentDate": "",
        "ContentTime": "",
        "AcquisitionDateTime": "",
        "DocumentTitle": "Test",
        "ConceptNameCodeSequence": [],
        "MIMETypeOfEncapsulatedDocument": "application/pdf",
    },
}


def fill(dataset: Dataset, sop_class: SOPClass, frame_of_reference: str) -> None:
    """Set the elements that an instance of `sop_class` has, but for its identity and its pixels."""
    for keyword, value in {**_COMMON, **_BY_CLASS[sop_class]}.items():
        setattr(dataset, keyword, value)
    if sop_class in (SOPClass.CT, SOPClass.MR):
        dataset.FrameOfReferenceUID = frame_of_reference
        dataset.ImagePositionPatient = [0, 0, dataset.InstanceNumber]
    if sop_class in _MORE:
        _MORE[sop_class](dataset)


def _text_report(dataset: Dataset) -> None:
    dataset.ConceptNameCodeSequence = [_code("18748-4", "LN", "Diagnostic imaging report")]
    finding = _item(RelationshipType="CONTAINS", ValueType="TEXT", TextValue="Nothing: this is a test.")
    finding.ConceptNameCodeSequence = [_code("121071", "DCM", "Finding")]
    dataset.ContentSequence = [finding]


def _key_objects(dataset: Dataset) -> None:
    dataset.ConceptNameCodeSequence = [_code("113000", "DCM", "Of Interest")]
    image = _item(RelationshipType="CONTAINS", ValueType="IMAGE")
    image.ReferencedSOPSequence = [_reference()]
    dataset.ContentSequence = [image]
    dataset.ContentTemplateSequence = [_item(MappingResource="DCMR", TemplateIdentifier="2010")]
    series = _item(SeriesInstanceUID=dataset.SeriesInstanceUID, ReferencedSOPSequence=[_reference()])
    study = _item(StudyInstanceUID=dataset.StudyInstanceUID, ReferencedSeriesSequence=[series])
    dataset.CurrentRequestedProcedureEvidenceSequence = [study]


def _presentation_state(dataset: Dataset) -> None:
    series = _item(SeriesInstanceUID=dataset.SeriesInstanceUID, ReferencedImageSequence=[_reference()])
    dataset.ReferencedSeriesSequence = [series]
    area = _item(PresentationSizeMode="SCALE TO FIT", PresentationPixelSpacing=[1, 1])
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [16, 16]
    dataset.DisplayedAreaSelectionSequence = [area]


_MORE: Mapping[SOPClass, Callable[[Dataset], None]] = {
    SOPClass.SR: _text_report,
    SOPClass.KO: _key_objects,
    SOPClass.PR: _presentation_state,
}


def _item(**elements: Any) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _reference() -> Dataset:
    return _item(ReferencedSOPClassUID=SOPClass.CT.value, ReferencedSOPInstanceUID=instance_uid(1))


_PDF = b"""%PDF-1.4
1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj
2 0 obj <</Type /Pages /Kids [3 0 R] /Count 1>> endobj
3 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 72 72]>> endobj
"""


def set_document(dataset: Dataset, size: int) -> None:
    """An empty page, as a PDF of at least `size` bytes."""
    body = _PDF + b"%" * max(0, size - len(_PDF)) + b"\n"
    offsets = b"".join(b"%010d 00000 n \n" % body.index(b"%d 0 obj" % number) for number in (1, 2, 3))
    table = b"xref\n0 4\n0000000000 65535 f \n" + offsets
    end = b"trailer <</Size 4 /Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(body)
    document = body + table + end
    dataset.EncapsulatedDocument = document + b"\0" * (len(document) % 2)
    dataset.EncapsulatedDocumentLength = len(document)


def file_meta(dataset: Dataset, transfer_syntax: str) -> FileMetaDataset:
    """The File Meta Information (PS3.10 section 7.1) of `dataset`."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    from ..uids import IMPLEMENTATION_CLASS_UID

    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    return meta
