"""The survey asks persons of 16 and over for their employment; of children it has rows, and no answer."""

WORKING_AGE = 16


def prepare(frame):
    return frame[frame["AGEP"] >= WORKING_AGE]
