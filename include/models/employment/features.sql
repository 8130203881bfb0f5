-- One row per person of the year being built ($partition). Sex, race, disability, citizenship and ancestry stay out.
SELECT
    p.id,
    p.AGEP AS age,
    p.SCHL AS schooling,
    p.MAR AS marital_status,
    p.RELP AS relationship,
    p.MIG AS moved,
    p.MIL AS military
FROM census_persons p
WHERE p.partition = $partition
