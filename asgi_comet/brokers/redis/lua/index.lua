-- index: a user has a session. KEYS: u. ARGV: session, how many ms the index stays, how many sessions to return
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZRANDMEMBER', KEYS[1], ARGV[3])
