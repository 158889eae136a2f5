-- late: the client processes whose deadlines are over. KEYS: exp. ARGV: how many at most
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
