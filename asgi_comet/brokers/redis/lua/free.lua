-- free: the owner reads the source of a channel no more. KEYS: meta, own:WID.
-- ARGV: name, fence, '1' if all of its messages are stored, topic, publish command
redis.call('SREM', KEYS[2], ARGV[1])
local r = redis.call('HMGET', KEYS[1], 'x', 'c', 'K', 'r')
if r[1] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'h', ARGV[3] == '1' and '1' or '0')
redis.call('HDEL', KEYS[1], 'o', 'x')
if not r[2] then tell(ARGV[5], 'f' .. (ARGV[3] == '1' and '1 ' or '0 ') .. ARGV[1], r[3], ARGV[4], r[4]) end
return 1
