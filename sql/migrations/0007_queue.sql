-- The queue is Procrastinate's, in this database. A job carries a run's id and nothing else: what becomes of the run
-- is in its row. What waits in the queue has a job, whoever puts it there: the two are one transaction.
CREATE FUNCTION defer_run(of_run uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM procrastinate_defer_jobs_v1(ARRAY[ROW(
        'runs', 'execute', 0, NULL, NULL, jsonb_build_object('run', of_run), NULL
    )::procrastinate_job_to_defer_v1]);
END
$$;

CREATE INDEX procrastinate_job_of_run ON procrastinate_jobs ((args->>'run')) WHERE status IN ('todo', 'doing');

CREATE FUNCTION run_is_queued() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM defer_run(NEW.id);
    RETURN NULL;
END
$$;

CREATE TRIGGER run_is_inserted AFTER INSERT ON run
    FOR EACH ROW WHEN (NEW.status = 'queued') EXECUTE FUNCTION run_is_queued();
CREATE TRIGGER run_is_queued AFTER UPDATE OF status ON run
    FOR EACH ROW WHEN (NEW.status = 'queued' AND OLD.status <> 'queued') EXECUTE FUNCTION run_is_queued();

-- Whether what the run has stored of its thread's state is undone when it is cancelled.
ALTER TABLE run ADD COLUMN rolls_back boolean NOT NULL DEFAULT false;

-- A run that ends makes room for the next one of its thread.
CREATE FUNCTION run_has_ended() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    following uuid;
BEGIN
    IF NEW.rolls_back AND NEW.status = 'cancelled' THEN
        WITH undone AS (
            DELETE FROM checkpoints
             WHERE thread_id = NEW.thread_id AND metadata->>'fs_run_id' = NEW.id::text
            RETURNING checkpoint_ns, checkpoint_id
        )
        DELETE FROM checkpoint_writes
         USING undone
         WHERE checkpoint_writes.thread_id = NEW.thread_id
           AND checkpoint_writes.checkpoint_ns = undone.checkpoint_ns
           AND checkpoint_writes.checkpoint_id = undone.checkpoint_id;
    END IF;
    SELECT id INTO following FROM run
     WHERE thread_id = NEW.thread_id AND status = 'queued'
     ORDER BY created_at, id
     LIMIT 1;
    IF FOUND THEN
        PERFORM defer_run(following);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER run_has_ended AFTER UPDATE OF status ON run
    FOR EACH ROW WHEN (NEW.session_id IS NOT NULL AND NEW.status IN ('succeeded', 'failed', 'cancelled')
                       AND OLD.status NOT IN ('succeeded', 'failed', 'cancelled'))
    EXECUTE FUNCTION run_has_ended();

-- What has been asked for under a key: asked again, it is not done again.
CREATE TABLE idempotency (
    org_id     uuid        NOT NULL REFERENCES org,
    operation  text        NOT NULL,
    key        text        NOT NULL,
    body_hash  bytea       NOT NULL,
    run_id     uuid        NOT NULL REFERENCES run ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (org_id, operation, key)
);

CREATE INDEX idempotency_by_age ON idempotency (created_at);
CREATE INDEX idempotency_by_run ON idempotency (run_id);
