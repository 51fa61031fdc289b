"""From files to a store. (Not called ``ingest``: importing a subpackage of that name would hide the function ``radioloader.ingest``.)"""
