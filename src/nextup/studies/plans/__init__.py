"""The studies, one file each; `nextup.studies.study.studies` imports them all.

Rows of which a study has many are in a file beside it whose name begins with an underscore.
"""
