-- Tables of the source that are selected and were not captured when the copies were planned: they are copied once they are.
ALTER TABLE syncline.replications ADD COLUMN left_out jsonb NOT NULL DEFAULT '[]';

-- 'mend' is 'resync' that ships only what differs.
ALTER TABLE syncline.replications DROP CONSTRAINT replications_pending_check;
ALTER TABLE syncline.replications ADD CONSTRAINT replications_pending_check CHECK (pending IN ('', 'plan', 'resync', 'mend'));

---- create above / drop below ----

ALTER TABLE syncline.replications DROP CONSTRAINT replications_pending_check;
ALTER TABLE syncline.replications ADD CONSTRAINT replications_pending_check CHECK (pending IN ('', 'plan', 'resync'));
ALTER TABLE syncline.replications DROP COLUMN left_out;
