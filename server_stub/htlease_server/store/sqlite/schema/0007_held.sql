-- Whose lease may have run out is looked for page by page, without reading a subjob's own page.
DROP INDEX subjob_held;
CREATE INDEX subjob_held ON subjob (workflow_id, id, status)
WHERE status IN ('active', 'recalled');
