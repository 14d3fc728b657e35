DROP INDEX subjob_held;
CREATE INDEX subjob_held ON subjob (workflow_id, id, status)
WHERE status IN ('active', 'recalled');
