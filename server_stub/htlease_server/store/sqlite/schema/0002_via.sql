-- Which way a request came: the relays between its sender and this server, or none.
ALTER TABLE history ADD COLUMN via TEXT;
