CREATE TABLE run (
    id               uuid        PRIMARY KEY,
    org_id           uuid        NOT NULL REFERENCES org,
    workflow_id      uuid        REFERENCES workflow ON DELETE SET NULL,
    version          text        NOT NULL,
    thread_id        text        NOT NULL,
    session_id       text,
    trigger          json        NOT NULL,
    input            json,
    durability       text        CHECK (durability IN ('sync', 'exit')),
    status           text        NOT NULL
                     CHECK (status IN ('queued', 'running', 'waiting', 'succeeded', 'failed', 'cancelled')),
    output           json,
    error            json,
    usage            json,
    had_errors       boolean     NOT NULL DEFAULT false,
    attempt          integer     NOT NULL DEFAULT 0,
    max_attempts     integer     NOT NULL DEFAULT 3,
    -- Raised by every claim: what was written under an older one is refused.
    epoch            integer     NOT NULL DEFAULT 0,
    lease_until      timestamptz,
    worker           text,
    cancel_requested boolean     NOT NULL DEFAULT false,
    -- From the first claim to the end: the run whose state the thread holds.
    active           boolean     NOT NULL DEFAULT false,
    next_seq         bigint      NOT NULL DEFAULT 1,
    created_at       timestamptz NOT NULL DEFAULT now(),
    started_at       timestamptz,
    finished_at      timestamptz,
    FOREIGN KEY (org_id, version) REFERENCES workflow_version
);

CREATE UNIQUE INDEX run_one_per_thread ON run (thread_id) WHERE active;
CREATE INDEX run_open ON run (created_at, id) WHERE status IN ('queued', 'running');
CREATE INDEX run_open_by_thread ON run (thread_id) WHERE status IN ('queued', 'running', 'waiting');
CREATE INDEX run_by_org ON run (org_id, id);
CREATE INDEX run_by_workflow ON run (workflow_id, id);

CREATE TABLE run_event (
    run_id uuid        NOT NULL REFERENCES run ON DELETE CASCADE,
    seq    bigint      NOT NULL,
    org_id uuid        NOT NULL,
    type   text        NOT NULL,
    at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    data   json        NOT NULL,
    PRIMARY KEY (run_id, seq)
);

CREATE TABLE question (
    id           uuid        PRIMARY KEY,
    org_id       uuid        NOT NULL,
    run_id       uuid        NOT NULL REFERENCES run ON DELETE CASCADE,
    -- LangGraph's id of the interrupt that the answer goes to.
    interrupt_id text        NOT NULL,
    step         text        NOT NULL,
    question     json        NOT NULL,
    status       text        NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'answered', 'closed')),
    answer       json,
    deadline     timestamptz,
    asked_at     timestamptz NOT NULL DEFAULT now(),
    answered_at  timestamptz,
    UNIQUE (run_id, interrupt_id)
);

-- The fence: part of every transaction that writes a run's state. The lock makes a claim wait for it.
CREATE FUNCTION hold_run(of_run uuid, of_epoch integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM run WHERE id = of_run AND epoch = of_epoch AND status = 'running' FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run % is not held under epoch %', of_run, of_epoch USING ERRCODE = 'FS001';
    END IF;
END
$$;
