-- finish: phase two of closing client processes is done. KEYS: closing, process, keys to delete …. ARGV: process
for k = 3, #KEYS do redis.call('UNLINK', KEYS[k]) end
redis.call('PEXPIRE', KEYS[2], CLOSED)
return redis.call('ZREM', KEYS[1], ARGV[1])
