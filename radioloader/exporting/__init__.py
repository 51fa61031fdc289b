"""From a store to files. (Not called ``export``: importing a subpackage of that name would hide the function ``radioloader.export``.)"""
