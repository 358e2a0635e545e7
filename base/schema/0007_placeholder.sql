-- The number is another branch's; its file takes this place when both are merged.
SELECT 1;
