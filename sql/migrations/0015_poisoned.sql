-- How often in a row a process died under a run, or stood still, with nothing of the run kept in between. Who takes the
-- run over counts; whatever is kept begins anew. A run that was left for want of the database has no worker.
ALTER TABLE run ADD COLUMN losses integer NOT NULL DEFAULT 0;
