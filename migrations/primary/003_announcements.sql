-- What a logger tells its followers about the tables that it captures, as a row inserted in the transaction that it is about.
-- The row is deleted again in that transaction, and only inserts are published: whoever may insert here is believed.
CREATE TABLE syncline.announcements (
    publication text NOT NULL,
    content text NOT NULL
);
REVOKE ALL ON syncline.announcements FROM PUBLIC;

---- create above / drop below ----

DROP TABLE syncline.announcements;
