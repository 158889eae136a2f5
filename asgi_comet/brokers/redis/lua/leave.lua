-- leave: a worker has no more connection of a client process. KEYS: process, exp.
-- ARGV: process, worker, timeout ms, for how many ms the worker has had none, when the living workers were counted, living workers …
local p = redis.call('HMGET', KEYS[1], 's', 'x', 'seen')
if not p[1] or p[2] then return 0 end
if redis.call('HDEL', KEYS[1], 'k:' .. ARGV[2]) == 0 then return 1 end         -- its own retry
local seen, alive = math.max(tonumber(p[3] or '0'), now - ARGV[4]), {}
redis.call('HSET', KEYS[1], 'seen', seen)
for i = 6, #ARGV do alive[ARGV[i]] = true end
if not bury(KEYS[1], tonumber(ARGV[5]), alive) then redis.call('ZADD', KEYS[2], seen + ARGV[3], ARGV[1]) end
return 1
