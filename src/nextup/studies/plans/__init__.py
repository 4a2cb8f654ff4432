"""The studies, one file each; `nextup.studies.study.studies` imports them all."""
