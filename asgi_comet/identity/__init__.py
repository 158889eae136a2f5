"""Who a client is: sessions, client processes, users and their rights."""
