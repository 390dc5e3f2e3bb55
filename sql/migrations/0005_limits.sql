-- What a run may use up, besides the limits of its workflow.
ALTER TABLE run ADD COLUMN limits jsonb;
