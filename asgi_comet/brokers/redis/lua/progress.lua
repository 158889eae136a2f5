-- progress: how far the client of an own channel has read; its reader reports soon what was sent. KEYS: meta.
-- ARGV: name, publish command
local r = redis.call('HMGET', KEYS[1], 'e', 'k', 'a', 'ja', 'j', 's', 'r')
if r[7] and tonumber(r[2] or '0') < tonumber(r[6]) then redis.call(ARGV[2], r[7], 'k' .. ARGV[1]) end
return { r[1], r[2], r[3], r[4], r[5] }
