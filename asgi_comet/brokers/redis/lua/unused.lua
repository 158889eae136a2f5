-- unused: ends a channel that no worker uses; its owner has unsubscribed before. KEYS: meta, log, names, own:WID.
-- ARGV: topic, name, fence ('': of no owner), publish command, numsub command, linger ms
local m = redis.call('HMGET', KEYS[1], 'e', 'x', 'c', 'u', 't')
if not m[1] then
  redis.call('ZREM', KEYS[3], ARGV[2])
  redis.call('SREM', KEYS[4], ARGV[2])
end
if not m[1] or (m[2] or '') ~= ARGV[3] or not string.find(m[5] or '', 'r', 1, true) then return 0 end
if m[3] then return m[3] == 'unused' and 1 or 0 end                            -- its own retry
if redis.call('PUBSUB', ARGV[5], ARGV[1])[2] > 0 or tonumber(m[4] or '0') > now - ARGV[6] then return 0 end
redis.call('HSET', KEYS[1], 'c', 'unused')
redis.call('HDEL', KEYS[1], 'o')                                               -- not x, by which its own retry is known
redis.call('PEXPIRE', KEYS[1], ENDED)
redis.call('PEXPIRE', KEYS[2], ARGV[6])
redis.call('ZREM', KEYS[3], ARGV[2])
redis.call('SREM', KEYS[4], ARGV[2])
redis.call(ARGV[4], ARGV[1], 'c' .. m[1] .. ' unused ' .. ARGV[2])
return 1
