-- prolong: a worker still says farewell to a closed client process. KEYS: closing. ARGV: process
return redis.call('ZADD', KEYS[1], 'XX', now, ARGV[1])
