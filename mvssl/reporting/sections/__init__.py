"""The sections of a report.

in   `Inputs`: the files of a run, and its encoded samples and training shards if they could be opened
out  the blocks of a section, from its function `show_...`, which raises `MvsslError` with the reason if there are none
"""
