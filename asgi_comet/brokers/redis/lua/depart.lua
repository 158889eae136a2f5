-- depart: a worker stops. KEYS: workers, dead, members, numbers. ARGV: worker, '1' if it still owns something
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[3], ARGV[1])
redis.call('HDEL', KEYS[4], ARGV[1])
if ARGV[2] == '1' then redis.call('HSET', KEYS[2], ARGV[1], '0 ') end
return 1
