-- end: ends a channel. KEYS: meta, log, state, names, own:WID.
-- ARGV: name, making, fence ('': any), reason, linger ms, topic, publish command
local r = redis.call('HMGET', KEYS[1], 'e', 'c', 'i', 'x')
if not r[1] then return { 'gone' } end
if r[3] ~= ARGV[2] then return { 'ended', 'ended' } end                        -- a namesake
if r[2] then return { 'ended', r[2] } end
if ARGV[3] ~= '' and ARGV[3] ~= r[4] then return { 'fenced' } end
redis.call('HSET', KEYS[1], 'c', ARGV[4])
redis.call('HDEL', KEYS[1], 'o')
redis.call('PEXPIRE', KEYS[1], ENDED)
redis.call('PEXPIRE', KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[3], ENDED)
redis.call('ZREM', KEYS[4], ARGV[1])
redis.call('SREM', KEYS[5], ARGV[1])
redis.call(ARGV[7], ARGV[6], 'c' .. r[1] .. ' ' .. ARGV[4] .. ' ' .. ARGV[1])
return { 'ended', ARGV[4] }
