-- stock: an open client process whose deadline is lost gets another one. KEYS: process, exp. ARGV: process, timeout ms
local p = redis.call('HMGET', KEYS[1], 's', 'x')
if not p[1] or p[2] then return 0 end
return redis.call('ZADD', KEYS[2], 'NX', now + ARGV[2] + LATE, ARGV[1])
