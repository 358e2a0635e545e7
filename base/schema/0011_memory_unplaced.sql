-- Cards that no store has yet, beside those whose vector_of is NULL. A card that comes in tells the
-- model ahead and stands here until it is placed: to write vector_of later would write the row and
-- eleven indexes again. Without a foreign key, which would lock each card once more; what has no
-- card any more is removed by maintenance.
CREATE TABLE memory_unplaced (memory_id UUID PRIMARY KEY);
