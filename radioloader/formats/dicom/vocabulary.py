"""Which texts of a header are kept: words that the standard or the makers of scanners use, not what somebody typed.

A value representation does not keep names out: a CS may hold anything that its writer did not check. So of each text only known words, or
what looks like a code of a device, are taken.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["BODY_PARTS", "is_known"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")
"""The repertoire of CS (PS3.5 6.2)."""

BODY_PARTS = _words("""
    ABDOMEN ABD ABDOMENPELVIS ADRENAL ANKLE AORTA ARM ARTERY AXILLA BACK BLADDER BODY BONE BRACHIAL BRAIN BREAST BRONCHUS BUTTOCK
    CALCANEUS CALF CAP CARDIAC CAROTID CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CLAVICLE COCCYX COLON CORONARY CSPINE
    CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT FOREARM GALLBLADDER GLAND HAND HEAD HEADNECK HEART
    HIP HUMERUS IAC ILEUM ILIUM JAW JEJUNUM JOINT KIDNEY KNEE LARYNX LEG LIVER LOWER LSPINE LSSPINE LUMBAR LUNG MANDIBLE MAXILLA
    MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT OVARY PANCREAS PAROTID PATELLA PELVIS PENIS PHARYNX
    PITUITARY PROSTATE RADIUS RECTUM RIB SACRUM SCALP SCAPULA SCLERA SCROTUM SHOULDER SINUS SKULL SPINE SPLEEN SSPINE STERNUM STOMACH
    SUBMANDIBULAR TEMPORAL TESTIS THIGH THORAX THUMB THYMUS THYROID TIBIA TIBIAFIBULA FIBULA TLSPINE TMJ TOE TONGUE TRACHEA TRUNK TSPINE
    ULNA UMBILICAL UPPER URETER URETHRA UTERUS VAGINA VEIN VULVA WHOLE WHOLEBODY WRIST ZYGOMA KIDNEYS LUNGS BREASTS SHOULDERS CERVICAL
    THORACIC LEFT RIGHT TO AND OF L R LWRLEG UPRLEG LOWEREXTREMITY UPPEREXTREMITY ARTERIES VESSELS PHANTOM""")
"""Body parts of PS3.16 Annex L and CID 4, and how scanners write them."""

_WORDS: dict[str, frozenset[str]] = {
    "PatientPosition": _words(
        "HFP HFS HFDR HFDL FFDR FFDL FFP FFS LFP LFS RFP RFS AFDR AFDL PFDR PFDL AFP AFS PFP PFS SITTING"
    ),
    "ScanningSequence": _words("SE IR GR EP RM"),
    "SequenceVariant": _words("SK MTC SS TRSS SP MP OSP NONE"),
    "MRAcquisitionType": _words("1D 2D 3D"),
    "DecayCorrection": _words("NONE START ADMIN"),
    "LossyImageCompression": _words("00 01"),
    "Units": _words(
        "CNTS NONE CM2 CM2ML PCNT CPS BQML MGMINML UMOLMINML MLMING MLG 1CM UMOLML PROPCNTS PROPCPS MLMINML MLML GML STDDEV"
    ),
    "RescaleType": _words(
        "OD HU US MGML Z_EFF ED EDW HU_MOD PCT NORMALIZED SUV BQML CNTS PROPCNTS STDDEV 1CM GML PET_CPS CPS"
    ),
}
_KERNEL = re.compile(r"[A-Z]{1,2}|\d{1,2}|[A-Za-z]{1,4}\d{1,3}[A-Za-z]?(-[A-Z])?")
_KERNELS = _words(
    "STANDARD STANDARDPLUS STND SOFT SMOOTH SHARP LUNG BONE BONEPLUS DETAIL EDGE ULTRA CHST BRAIN BODY HEAD NONE IMR IDOSE"
)
_FILTERS = _words(
    "BODY HEAD FILTER FIL WEDGE FLAT LARGE MEDIUM SMALL BOWTIE STRIP NONE MULTIPLE BUTTERFLY AIR CARDIAC PEDIATRIC"
)
_NUCLEUS = re.compile(r"\d{0,3}[A-Z][a-z]?\d{0,3}")
_DEVICE = re.compile(r"[A-Za-z0-9 _.,:;+*/()&-]{1,64}")
_LONG_NUMBER = re.compile(r"\d{5}|\d{1,4}[./-]\d{1,2}[./-]\d{1,4}")


def is_known(keyword: str, parts: Sequence[str]) -> bool:
    """Whether the values of a technical text attribute are such as devices write.

    Args:
        keyword: The attribute.
        parts: Its values, without spaces around them.
    """
    if keyword in _WORDS:
        return all(part in _WORDS[keyword] for part in parts)
    if keyword == "BodyPartExamined":
        return all(set(re.split(r"[ _/&+,-]+", part.upper())) <= BODY_PARTS for part in parts)
    if keyword == "ConvolutionKernel":
        return all(_KERNEL.fullmatch(part) or part.upper() in _KERNELS for part in parts)
    if keyword == "FilterType":
        return all(
            word in _FILTERS or re.fullmatch(r"\d{1,2}", word)
            for part in parts
            for word in re.split(r"[ _-]+", part.upper())
        )
    if keyword == "ImagedNucleus":
        return all(_NUCLEUS.fullmatch(part) for part in parts)
    if keyword in ("Modality", "ImageType", "ScanOptions"):
        # Open lists, which no user types; an empty one among several is a value as well.
        return all(_CODE.fullmatch(part) or not part for part in parts)
    return all(_DEVICE.fullmatch(part) and not _LONG_NUMBER.search(part) for part in parts)
