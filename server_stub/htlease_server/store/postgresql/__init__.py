"""The store in PostgreSQL, which any number of servers share; needs psycopg 3."""
