"""DICOM in and out: series, segmentations (SEG) and structure sets (RTSTRUCT).

pydicom, highdicom and the pylibjpeg plug-ins do the decoding. What is done here is what decides whether voxels lie where the files say:
which frames make one volume, in which order, on which grid, with which values.
"""
