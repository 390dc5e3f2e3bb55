-- What is published of a workflow is one of its versions; its triggers work only then.
ALTER TABLE workflow ADD COLUMN published_version text, ADD COLUMN published_at timestamptz,
    ADD FOREIGN KEY (org_id, published_version) REFERENCES workflow_version;

-- Every version that a workflow has had.
CREATE TABLE workflow_history (
    workflow_id uuid        NOT NULL REFERENCES workflow ON DELETE CASCADE,
    version     text        NOT NULL,
    saved_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (workflow_id, version)
);
INSERT INTO workflow_history (workflow_id, version, saved_at) SELECT id, version, updated_at FROM workflow;

-- The workflow that runs when one of another fails that names none.
ALTER TABLE org ADD COLUMN error_workflow uuid REFERENCES workflow ON DELETE SET NULL,
    -- What callbacks are signed with, sealed; the one before is used beside it for some time.
    ADD COLUMN signing_secret text, ADD COLUMN old_signing_secret text, ADD COLUMN signing_changed_at timestamptz;

-- `live` is what the published version says of the webhook, `draft` what the drawing says that is being edited.
CREATE TABLE webhook (
    id          uuid        PRIMARY KEY,
    org_id      uuid        NOT NULL REFERENCES org,
    workflow_id uuid        NOT NULL REFERENCES workflow ON DELETE CASCADE,
    step        text,
    source      text        NOT NULL CHECK (source IN ('drawing', 'api')),
    live        json,
    draft       json,
    path        text        UNIQUE,
    test_path   text        UNIQUE,
    made_path   text        NOT NULL,
    is_enabled  boolean     NOT NULL DEFAULT true,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX webhook_of_step ON webhook (workflow_id, step) WHERE source = 'drawing';
CREATE INDEX webhook_by_org ON webhook (org_id, id);

CREATE TABLE webhook_secret (
    id         uuid        PRIMARY KEY,
    webhook_id uuid        NOT NULL REFERENCES webhook ON DELETE CASCADE,
    sealed     text        NOT NULL,
    is_drawn   boolean     NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);
CREATE INDEX webhook_secret_of ON webhook_secret (webhook_id);

-- How many deliveries have been taken in a minute, by webhook and by organisation.
CREATE UNLOGGED TABLE delivery_count (
    of     uuid        NOT NULL,
    minute timestamptz NOT NULL,
    count  integer     NOT NULL,
    PRIMARY KEY (of, minute)
);

-- The ledger: what came in through webhooks, and what goes out as callbacks.
CREATE TABLE delivery (
    id            uuid        PRIMARY KEY,
    org_id        uuid        NOT NULL REFERENCES org,
    direction     text        NOT NULL CHECK (direction IN ('in', 'out')),
    webhook_id    uuid        REFERENCES webhook ON DELETE CASCADE,
    key           text        NOT NULL,
    run_id        uuid        REFERENCES run ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
    status        text        NOT NULL CHECK (status IN ('accepted', 'dead', 'pending', 'delivered')),
    is_test       boolean     NOT NULL DEFAULT false,
    redelivers    uuid,
    method        text        NOT NULL DEFAULT 'POST',
    url           text        NOT NULL,
    query         json,
    headers       json,
    body          bytea,
    client_ip     text,
    repeats       integer     NOT NULL DEFAULT 0,
    attempts      integer     NOT NULL DEFAULT 0,
    next_at       timestamptz,
    answer_status integer,
    answer_ms     integer,
    error         json,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    done_at       timestamptz,
    CHECK ((direction = 'in') = (webhook_id IS NOT NULL))
);
CREATE UNIQUE INDEX delivery_once ON delivery (webhook_id, key) WHERE direction = 'in';
CREATE INDEX delivery_by_webhook ON delivery (webhook_id, id);
CREATE INDEX delivery_by_run ON delivery (run_id);
CREATE INDEX delivery_out ON delivery (org_id, id) WHERE direction = 'out';
CREATE INDEX delivery_due ON delivery (next_at) WHERE status = 'pending';
CREATE INDEX delivery_by_age ON delivery (at) WHERE status <> 'pending';

-- What a run has answered to the webhook that started it; the first answer counts.
CREATE TABLE run_answer (
    run_id  uuid        PRIMARY KEY REFERENCES run ON DELETE CASCADE,
    status  integer     NOT NULL,
    headers json        NOT NULL,
    body    bytea       NOT NULL,
    at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE schedule (
    id          uuid        PRIMARY KEY,
    org_id      uuid        NOT NULL REFERENCES org,
    workflow_id uuid        NOT NULL REFERENCES workflow ON DELETE CASCADE,
    step        text,
    source      text        NOT NULL CHECK (source IN ('drawing', 'api')),
    name        text        NOT NULL,
    timing      json        NOT NULL,
    input       json,
    is_paused   boolean     NOT NULL DEFAULT false,
    -- Whether what it is drawn in is published; one made by the API always is there.
    is_live     boolean     NOT NULL DEFAULT true,
    anchor      timestamptz NOT NULL,
    -- The instant of the next firing, and when it is to happen, which jitter may put later.
    next_at     timestamptz,
    due_at      timestamptz,
    fired       integer     NOT NULL DEFAULT 0,
    last_at     timestamptz,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX schedule_of_step ON schedule (workflow_id, step) WHERE source = 'drawing';
CREATE INDEX schedule_by_org ON schedule (org_id, id);
CREATE INDEX schedule_due ON schedule (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE firing (
    schedule_id uuid        NOT NULL REFERENCES schedule ON DELETE CASCADE,
    at          timestamptz NOT NULL,
    run_id      uuid        REFERENCES run ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
    status      text        NOT NULL CHECK (status IN ('started', 'waiting', 'skipped', 'failed')),
    because     text,
    is_manual   boolean     NOT NULL DEFAULT false,
    fired_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (schedule_id, at)
);
CREATE INDEX firing_waiting ON firing (fired_at) WHERE status = 'waiting';
CREATE INDEX firing_by_run ON firing (run_id);

-- What is to be done after a run has ended is written down in the statement that ends it.
ALTER TABLE run ADD COLUMN callback json;

CREATE TABLE failed_run (
    run_id uuid        PRIMARY KEY REFERENCES run ON DELETE CASCADE,
    at     timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION run_is_over() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.callback IS NOT NULL THEN
        INSERT INTO delivery (id, org_id, direction, key, run_id, status, url, next_at)
        VALUES (gen_random_uuid(), NEW.org_id, 'out', 'callback', NEW.id, 'pending', NEW.callback->>'url', now());
    END IF;
    IF NEW.status = 'failed' AND NEW.workflow_id IS NOT NULL AND NEW.trigger->>'type' <> 'error'
       AND NOT coalesce((NEW.trigger->>'is_test')::boolean, false) THEN
        INSERT INTO failed_run (run_id) VALUES (NEW.id);
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER run_is_over AFTER UPDATE OF status ON run
    FOR EACH ROW WHEN (NEW.status IN ('succeeded', 'failed', 'cancelled')
                       AND OLD.status NOT IN ('succeeded', 'failed', 'cancelled')
                       AND (NEW.callback IS NOT NULL OR NEW.status = 'failed'))
    EXECUTE FUNCTION run_is_over();
