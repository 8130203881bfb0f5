-- Features of @NAME@: one row per row of the entity feed, for the day $partition.
--
-- Every feed is a table of its declared columns and `partition` (a DATE). A feed holds only what was known by the day
-- being built, so that looking into the future is not possible. Return the key of the entity feed, its event time if
-- it has one, and the features; never the label.
SELECT
    e."<fill in: the key of the entity feed>"
    -- , the features
FROM "<fill in: the entity feed>" AS e
WHERE e.partition = $partition
