"""Everything in a dataset that may tell who the patient is, with values that can be searched for."""

# ruff: noqa: SIM905  -- the lists of keywords are easier to read as text
from __future__ import annotations

from typing import Any

import pydicom.datadict
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from tests.formats.dicom.encode import uid

__all__ = ["plant_identity", "plant_uids"]

# Of PS3.15, table E.1-1, what may stand in an image; those marked U (UIDs) are below.
IDENTIFYING = """
AccessionNumber AcquisitionComments AcquisitionContextSequence AcquisitionDate AcquisitionDateTime
AcquisitionDeviceProcessingDescription AcquisitionProtocolDescription AcquisitionTime ActualHumanPerformersSequence
AdditionalPatientHistory AdmissionID AdmittingDate AdmittingDiagnosesCodeSequence AdmittingDiagnosesDescription
AdmittingTime Allergies AttributeModificationDateTime BranchOfService CassetteID CommentsOnRadiationDose
CommentsOnThePerformedProcedureStep ConsultingPhysicianName ContentCreatorName ContentDate ContentTime
ContrastBolusAgent ContributionDescription CountryOfResidence CurrentPatientLocation CustodialOrganizationSequence
DateOfLastCalibration DerivationDescription DetectorID DeviceDescription DeviceSerialNumber EthnicGroup
FillerOrderNumberImagingServiceRequest FrameAcquisitionDateTime FrameComments FrameReferenceDateTime GantryID
GeneratorID IdentifyingComments ImageComments ImagePresentationComments ImagingServiceRequestComments
InstanceCoercionDateTime InstanceCreationDate InstanceCreationTime InstitutionAddress InstitutionCodeSequence
InstitutionName InstitutionalDepartmentName IssueDateOfImagingServiceRequest IssuerOfAdmissionID IssuerOfPatientID
IssuerOfServiceEpisodeID LastMenstrualDate MedicalAlerts MedicalRecordLocator MilitaryRank
NameOfPhysiciansReadingStudy NamesOfIntendedRecipientsOfResults Occupation OperatorIdentificationSequence
OperatorsName OrderCallbackPhoneNumber OrderEnteredBy OrderEntererLocation OtherPatientIDs OtherPatientIDsSequence
OtherPatientNames PatientAddress PatientAge PatientBirthDate PatientBirthName PatientBirthTime PatientComments
PatientID PatientInsurancePlanCodeSequence PatientInstitutionResidence PatientMotherBirthName PatientName
PatientPrimaryLanguageCodeSequence PatientReligiousPreference PatientSex PatientSexNeutered PatientSize
PatientState PatientTelephoneNumbers PatientTransportArrangements PatientWeight PerformedLocation
PerformedProcedureStepDescription PerformedProcedureStepEndDate PerformedProcedureStepEndTime
PerformedProcedureStepID PerformedProcedureStepStartDate PerformedProcedureStepStartTime PerformedStationAETitle
PerformedStationName PerformingPhysicianIdentificationSequence PerformingPhysicianName
PersonIdentificationCodeSequence PhysiciansOfRecord PhysiciansOfRecordIdentificationSequence
PhysiciansReadingStudyIdentificationSequence PlacerOrderNumberImagingServiceRequest PlateID PreMedication
PregnancyStatus ProtocolName ReasonForStudy ReasonForTheImagingServiceRequest ReasonForTheRequestedProcedure
ReferencedPatientSequence ReferencedStudySequence ReferringPhysicianAddress ReferringPhysicianIdentificationSequence
ReferringPhysicianName ReferringPhysicianTelephoneNumbers RegionOfResidence RequestAttributesSequence
RequestedContrastAgent RequestedProcedureComments RequestedProcedureDescription RequestedProcedureID
RequestedProcedureLocation RequestingPhysician RequestingService ResponsibleOrganization ResponsiblePerson
ReviewDate ReviewTime ReviewerName ScheduledHumanPerformersSequence ScheduledPatientInstitutionResidence
ScheduledPerformingPhysicianName ScheduledProcedureStepDescription ScheduledProcedureStepStartDate
ScheduledStationAETitle ScheduledStationName SeriesDate SeriesDescription SeriesTime ServiceEpisodeDescription
ServiceEpisodeID SmokingStatus SpecialNeeds StationName StudyComments StudyDate StudyDescription StudyID
StudyIDIssuer StudyTime TextComments TextString TimezoneOffsetFromUTC VisitComments
ClinicalTrialSponsorName ClinicalTrialProtocolID ClinicalTrialProtocolName ClinicalTrialSiteID ClinicalTrialSiteName
ClinicalTrialSubjectID ClinicalTrialSubjectReadingID ClinicalTrialTimePointID ClinicalTrialCoordinatingCenterName
ManufacturerModelName SoftwareVersions DateOfSecondaryCapture TimeOfSecondaryCapture SecondaryCaptureDeviceID
""".split()

IDENTIFYING_UIDS = """
ConcatenationUID DeviceUID DimensionOrganizationUID FiducialUID FrameOfReferenceUID InstanceCreatorUID
IrradiationEventUID RelatedFrameOfReferenceUID SeriesInstanceUID SOPInstanceUID StudyInstanceUID
SynchronizationFrameOfReferenceUID TransactionUID
""".split()

LENGTHS = {"SH": 16, "CS": 16, "AE": 16, "LO": 64, "PN": 64, "ST": 1024, "LT": 10240, "UT": 20000, "UC": 64}
# What software itself makes of a text for a value: so that no part of the value is a word that may stand elsewhere.
SYLLABLES = ["qua", "zed", "vox", "jul", "wyk", "xim", "pry", "kob"]


def _word(number: int, longest: int) -> str:
    digits = [(number >> shift) & 7 for shift in (9, 6, 3, 0)]
    return "".join(SYLLABLES[digit] for digit in digits)[:longest]


def _value(kind: str, keyword: str, number: int) -> Any:
    """A value of its own for each number, valid for the value representation."""
    if keyword == "TimezoneOffsetFromUTC":
        return "+1345"
    if kind == "DA":
        return f"{1911 + number % 80}{1 + number % 12:02d}{1 + number % 28:02d}"
    if kind == "TM":
        return f"{number % 24:02d}{number % 60:02d}{(number * 7) % 60:02d}.{731000 + number}"
    if kind == "DT":
        return f"{_value('DA', keyword, number)}{_value('TM', keyword, number)}"
    if kind == "AS":
        return f"{number % 10 + 90:03d}Y"
    if kind in ("DS", "FD", "FL"):
        return f"{number}.7391{number:03d}" if kind == "DS" else number + 0.7391
    if kind in ("IS", "US", "UL", "SS", "SL"):
        return 7391000 + number if kind in ("IS", "UL", "SL") else 47000 + number % 1000
    word = _word(number, LENGTHS[kind])
    if kind == "PN":
        return f"{word.capitalize()}^{_word(number + 2048, 12).capitalize()}"
    return word.upper() if kind in ("CS", "AE") else word


def _item(keyword: str, number: int, planted: dict[str, str]) -> Dataset:
    """An item with what such sequences hold: a code, a person, a patient, a reference; and one more level below."""
    inner = Dataset()
    deeper = Dataset()
    for place, ds in ((keyword, inner), (f"{keyword}/PersonIdentificationCodeSequence", deeper)):
        names = ["PatientID", "PersonName", "InstitutionName", "CodeMeaning", "PersonTelephoneNumbers", "TextValue"]
        for offset, name in enumerate(names):
            value = _value(pydicom.datadict.dictionary_VR(name), name, number + offset)
            setattr(ds, name, value)
            planted[f"{place}/{name}"] = str(value)
        number += len(names)
    inner.PersonIdentificationCodeSequence = Items([deeper])
    return inner


def plant_identity(ds: Dataset) -> dict[str, str]:
    """Fills every identifying attribute that an image may have, at the top, in sequences two levels deep and in private blocks.

    Returns what was planted, as text: by keyword, for what is nested by the path of keywords, and for private elements by the creator and
    number. Every text is a word that occurs nowhere else, so that searching an output for it proves something; numbers, ages, dates and
    the sex may by chance be found elsewhere (:data:`IDENTIFYING` says which keyword is which). UIDs are :func:`plant_uids`.
    """
    planted: dict[str, str] = {}
    number = 100
    for keyword in IDENTIFYING:
        kind = pydicom.datadict.dictionary_VR(keyword)
        if kind == "SQ":
            setattr(ds, keyword, Items([_item(keyword, number, planted)]))
            number += 12
            continue
        value = "F" if keyword == "PatientSex" else _value(kind, keyword, number)
        setattr(ds, keyword, value)
        planted[keyword] = str(value)
        number += 1
    modified = Dataset()
    original = Dataset()
    original.PatientID, original.PatientName = _word(number, 12), _value("PN", "PatientName", number + 1)
    modified.ModifiedAttributesSequence = Items([original])
    modified.ModifyingSystem, modified.ReasonForTheAttributeModification = _word(number + 2, 12), "COERCE"
    modified.SourceOfPreviousValues = _word(number + 3, 12)
    ds.OriginalAttributesSequence = Items([modified])
    path = "OriginalAttributesSequence/ModifiedAttributesSequence"
    planted |= {f"{path}/PatientID": original.PatientID, f"{path}/PatientName": str(original.PatientName)}
    planted["OriginalAttributesSequence/ModifyingSystem"] = modified.ModifyingSystem
    planted["OriginalAttributesSequence/SourceOfPreviousValues"] = modified.SourceOfPreviousValues
    number += 4
    for creator, group in (
        ("SIEMENS MED SMS USERNAME", 0x0027),
        ("GEMS_PATI_01", 0x0011),
        ("ACME HOSPITAL 1", 0x0099),
    ):
        block = ds.private_block(group, creator, create=True)
        inner = Dataset()
        inner.PatientName = _value("PN", "PatientName", number)
        for element, kind, value in (
            (0x01, "LO", _word(number + 1, 12)),
            (0x02, "PN", _value("PN", "", number + 2)),
            (0x03, "OB", _word(number + 3, 12).encode()),
            (0x04, "UN", _word(number + 4, 12).encode()),
            (0x05, "SQ", Items([inner])),
        ):
            block.add_new(element, kind, value)
            shown = value.decode() if isinstance(value, bytes) else str(value)
            planted[f"{creator}/{element:02x}"] = str(inner.PatientName) if kind == "SQ" else shown
        number += 5
    # Groups whose elements have no keyword of their own: curves (retired) and overlays.
    ds.add_new(0x50000022, "LO", _word(number, 12))
    ds.add_new(0x60001500, "LO", _word(number + 1, 12))
    ds.add_new(0x60004000, "LT", _word(number + 2, 12))
    planted |= {"CurveLabel": ds[0x50000022].value, "OverlayLabel": ds[0x60001500].value}
    planted["OverlayComments"] = ds[0x60004000].value
    return planted


def plant_uids(ds: Dataset, seed: str = "planted") -> dict[str, str]:
    """Fills every UID that can lead back to the hospital, and references to other instances; returns them as plant_identity does."""
    planted = {}
    for keyword in IDENTIFYING_UIDS:
        setattr(ds, keyword, uid(seed, keyword))
        planted[keyword] = str(getattr(ds, keyword))
    for keyword in ("ReferencedImageSequence", "SourceImageSequence"):
        inner = Dataset()
        inner.ReferencedSOPClassUID = ds.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2")
        inner.ReferencedSOPInstanceUID = uid(seed, keyword)
        setattr(ds, keyword, Items([inner]))
        planted[f"{keyword}/ReferencedSOPInstanceUID"] = str(inner.ReferencedSOPInstanceUID)
    if hasattr(ds, "file_meta"):
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return planted
